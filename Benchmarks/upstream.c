// A trivial HTTP/1.1 server on the Unix socket $HEARTH_SOCKET, as fast as one thread can be: the upstream of the
// benchmarks. Answers every request with the same 256 bytes. Understands Content-Length, which is all the load sends.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 4096, BUFFER_SIZE = 64 * 1024 };

static struct connection {
  size_t used;
  char buffer[BUFFER_SIZE];
} *connections[CONNECTIONS_MAX];

static char answer[512];
static size_t answer_length;

// The length of the first whole request in the buffer, or 0.
static size_t request_length(struct connection *connection) {
  char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
  if (end == NULL) return 0;
  size_t head = (size_t)(end - connection->buffer) + 4;
  size_t body = 0;
  *end = 0;
  char *field = strcasestr(connection->buffer, "\r\ncontent-length:");
  *end = '\r';
  if (field != NULL) body = strtoul(field + 17, NULL, 10);
  return connection->used >= head + body ? head + body : 0;
}

static int serve(int descriptor, struct connection *connection) {
  ssize_t got = read(descriptor, connection->buffer + connection->used, BUFFER_SIZE - 1 - connection->used);
  if (got <= 0) return -1;
  connection->used += (size_t)got;
  size_t length;
  while ((length = request_length(connection)) > 0) {
    if (write(descriptor, answer, answer_length) != (ssize_t)answer_length) return -1;
    memmove(connection->buffer, connection->buffer + length, connection->used - length);
    connection->used -= length;
  }
  return connection->used < BUFFER_SIZE - 1 ? 0 : -1;
}

int main(void) {
  const char *path = getenv("HEARTH_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || strlen(path) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, path);
  char body[257];
  memset(body, 'x', 256);
  body[256] = 0;
  answer_length = (size_t)snprintf(answer, sizeof answer,
                                   "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 256\r\n\r\n%s", body);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0) return 1;
  int poller = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(poller, events, 64, -1);
    for (int i = 0; i < count; i++) {
      int descriptor = events[i].data.fd;
      if (descriptor == listener) {
        int accepted = accept(listener, NULL, NULL);
        if (accepted < 0) continue;
        if (accepted >= CONNECTIONS_MAX || (connections[accepted] = calloc(1, sizeof(struct connection))) == NULL) {
          close(accepted);
          continue;
        }
        event.data.fd = accepted;
        epoll_ctl(poller, EPOLL_CTL_ADD, accepted, &event);
      } else if (serve(descriptor, connections[descriptor]) != 0) {
        free(connections[descriptor]);
        close(descriptor);
      }
    }
  }
}
