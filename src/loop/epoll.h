/* Included before each source file of the bundled libuv on Linux (build_support/third_party.toml): what it calls in
 * place of two system calls whose failures it answers with abort(). Python code can cause them: it has but to close a
 * descriptor that the loop watches. For the system's libuv there is bolide_epoll_settle(). */
#ifndef BOLIDE_LOOP_EPOLL_H
#define BOLIDE_LOOP_EPOLL_H

#ifdef __linux__
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As epoll_ctl(), but libuv's poll succeeds in watching a descriptor that was closed behind its back: the number
 * becomes a socket that is not connected, so that the kernel tells whoever reads or writes it. What cannot be watched,
 * such as a file that was opened under that number, is not. */
int bolide_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);

struct uv_loop_s;

/* Where libuv is the system's, and calls epoll_ctl() itself: right before it polls, do its work on the queue of what is
 * to be watched, so that nothing is left in there for it to stumble on. */
void bolide_epoll_settle(struct uv_loop_s *loop);

#define epoll_ctl bolide_epoll_ctl

/* libuv takes epoll_ctl() itself where there is no ring to hand it to. */
#ifdef SYS_io_uring_setup
#define syscall(number, ...)                                                                                           \
    ((number) == SYS_io_uring_setup ? (errno = ENOSYS, -1L) : (long)syscall(number, ##__VA_ARGS__))
#endif
#endif

#endif
