#define _GNU_SOURCE
#include "CPlatform.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 8 };

ssize_t hearth_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors,
                                int descriptor_count) {
  if (descriptor_count < 0 || descriptor_count > DESCRIPTORS_MAX) {
    errno = EINVAL;
    return -1;
  }
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (descriptor_count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE((size_t)descriptor_count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN((size_t)descriptor_count * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors, (size_t)descriptor_count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

int hearth_spawn(const char *path, char *const arguments[], char *const environment[], const char *directory,
                 const int *descriptors, int descriptor_count, pid_t *pid) {
  // Duplicated above the targets first, so that no dup2 overwrites a descriptor that is still to be placed.
  int staged[DESCRIPTORS_MAX];
  if (descriptor_count < 0 || descriptor_count > DESCRIPTORS_MAX) return EINVAL;
  int failure = 0;
  for (int i = 0; i < descriptor_count; i++) {
    staged[i] = fcntl(descriptors[i], F_DUPFD_CLOEXEC, 64);
    if (staged[i] < 0 && failure == 0) failure = errno;
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  if (failure == 0) {
    for (int i = 0; i < descriptor_count; i++) posix_spawn_file_actions_adddup2(&actions, staged[i], i);
    posix_spawn_file_actions_addclosefrom_np(&actions, descriptor_count);
    if (directory != NULL) posix_spawn_file_actions_addchdir_np(&actions, directory);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    failure = posix_spawn(pid, path, &actions, &attributes, arguments, environment);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  for (int i = 0; i < descriptor_count; i++) {
    if (staged[i] >= 0) close(staged[i]);
  }
  return failure;
}

int hearth_sync_file_system(int descriptor) { return syncfs(descriptor); }
