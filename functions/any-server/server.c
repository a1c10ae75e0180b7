/* A function in C: any program that serves HTTP/1.1 on the Unix socket $HEARTH_SOCKET is one. Tells how long a text
 * takes to read. One thread a connection; Hearth opens as many as max-concurrency says, and keeps them. */
#define _GNU_SOURCE
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WORDS_PER_MINUTE = 230 };

/* Reads a request's head up to its empty line. Returns the length of the body, -1 at the connection's end. Hearth gives
 * every body of up to 256 KiB a Content-Length; a larger one may come in chunks, which this server does not take. */
static long read_head(FILE *connection) {
  char *line = NULL;
  size_t room = 0;
  long length = -1;
  for (long found = 0; getline(&line, &room, connection) > 0;) {
    if (strncasecmp(line, "content-length:", 15) == 0) found = strtol(line + 15, NULL, 10);
    if (strcmp(line, "\r\n") == 0) {
      length = found;
      break;
    }
  }
  free(line);
  return length;
}

static long count_words(const char *text, long length) {
  long words = 0;
  for (long i = 0; i < length; i++)
    if (!isspace((unsigned char)text[i]) && (i == 0 || isspace((unsigned char)text[i - 1]))) words++;
  return words;
}

static void *serve(void *argument) {
  FILE *in = argument, *out = fdopen(dup(fileno(in)), "w");
  for (long length; (length = read_head(in)) >= 0;) {
    char *text = malloc(length + 1), answer[128];
    int is_whole = (long)fread(text, 1, length, in) == length;
    long words = count_words(text, length);
    free(text);
    if (!is_whole) break;
    int size = snprintf(answer, sizeof answer, "{\"words\":%ld,\"seconds\":%.1f}", words, words * 60.0 / WORDS_PER_MINUTE);
    fprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, answer);
    if (fflush(out) != 0) break;
  }
  fclose(in);
  fclose(out);
  return NULL;
}

int main(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = getenv("HEARTH_SOCKET");
  if (!path || strlen(path) >= sizeof address.sun_path) return fprintf(stderr, "HEARTH_SOCKET is not set\n"), 1;
  strcpy(address.sun_path, path);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return perror(path), 1;
  for (int connection; (connection = accept(listener, NULL, NULL)) >= 0;) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, fdopen(connection, "r")) == 0) pthread_detach(thread);
  }
  return 0;
}
