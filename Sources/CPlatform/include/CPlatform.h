#pragma once
#include <stddef.h>
#include <sys/types.h>

// What Linux offers and Swift's Glibc module does not show: descriptor passing, spawning, flushing one file system.

/// Sends `length` bytes and `descriptor_count` descriptors (at most 8) without blocking.
/// Returns the number of bytes sent, or -1 with errno set. Never raises SIGPIPE.
ssize_t hearth_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors,
                                int descriptor_count);

/// Starts `path` in its own session with `descriptors[i]` duplicated to descriptor `i` and every other one closed.
/// Returns 0 and stores the process id, or an errno value.
int hearth_spawn(const char *path, char *const arguments[], char *const environment[], const char *directory,
                 const int *descriptors, int descriptor_count, pid_t *pid);

/// Flushes the file system that holds the descriptor (syncfs(2)).
int hearth_sync_file_system(int descriptor);
