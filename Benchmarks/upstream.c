// A trivial HTTP/1.1 server on the Unix socket $HEARTH_SOCKET, as fast as one thread can be: the upstream of the
// benchmarks. Answers /large with a mebibyte and all else with the same 256 bytes. Understands Content-Length, which is
// all the load sends.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 4096, BUFFER_SIZE = 64 * 1024, LARGE = 1 << 20 };

static struct connection {
  size_t used;
  size_t skipped;  // bytes of a body that are still to come and are not looked at
  int large;       // whether that body's answer is the large one
  char buffer[BUFFER_SIZE];
} *connections[CONNECTIONS_MAX];

static char answer[512];
static size_t answer_length;
static char *large_answer;
static size_t large_length;

static int send_all(int descriptor, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t sent = write(descriptor, bytes, count);
    if (sent <= 0) return -1;
    bytes += sent;
    count -= (size_t)sent;
  }
  return 0;
}

static int reply(int descriptor, int large) {
  return large ? send_all(descriptor, large_answer, large_length) : send_all(descriptor, answer, answer_length);
}

static void take(struct connection *connection, size_t count) {
  memmove(connection->buffer, connection->buffer + count, connection->used - count);
  connection->used -= count;
}

static int serve(int descriptor, struct connection *connection) {
  ssize_t got = read(descriptor, connection->buffer + connection->used, BUFFER_SIZE - 1 - connection->used);
  if (got <= 0) return -1;
  connection->used += (size_t)got;
  for (;;) {
    if (connection->skipped > 0) {
      size_t count = connection->skipped < connection->used ? connection->skipped : connection->used;
      take(connection, count);
      connection->skipped -= count;
      if (connection->skipped > 0) return 0;
      if (reply(descriptor, connection->large) != 0) return -1;
    }
    char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
    if (end == NULL) return connection->used < BUFFER_SIZE - 1 ? 0 : -1;
    *end = 0;
    char *field = strcasestr(connection->buffer, "\r\ncontent-length:");
    connection->large = strstr(connection->buffer, " /large ") != NULL;
    connection->skipped = field != NULL ? strtoul(field + 17, NULL, 10) : 0;
    take(connection, (size_t)(end - connection->buffer) + 4);
    if (connection->skipped == 0 && reply(descriptor, connection->large) != 0) return -1;
  }
}

int main(void) {
  // A front end may close a connection that an answer is on its way to.
  signal(SIGPIPE, SIG_IGN);
  const char *path = getenv("HEARTH_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || strlen(path) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, path);
  char body[257];
  memset(body, 'x', 256);
  body[256] = 0;
  answer_length = (size_t)snprintf(answer, sizeof answer,
                                   "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 256\r\n\r\n%s", body);
  large_answer = malloc(LARGE + 200);
  if (large_answer == NULL) return 1;
  large_length = (size_t)sprintf(large_answer, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", LARGE);
  memset(large_answer + large_length, 'x', LARGE);
  large_length += LARGE;
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
