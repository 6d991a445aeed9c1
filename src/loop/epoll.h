/* Included before each source file of the bundled libuv on Linux (build_support/third_party.toml): what it calls in
 * place of two system calls whose failures it answers with abort(). Python code can cause them: it has but to close a
 * descriptor that the loop watches. */
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

#define epoll_ctl bolide_epoll_ctl

/* libuv takes epoll_ctl() itself where there is no ring to hand it to. */
#ifdef SYS_io_uring_setup
#define syscall(number, ...)                                                                                           \
    ((number) == SYS_io_uring_setup ? (errno = ENOSYS, -1L) : (long)syscall(number, ##__VA_ARGS__))
#endif
#endif

#endif
