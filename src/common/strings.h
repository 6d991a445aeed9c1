/* The interned strings of the module state: BOLIDE_STRINGS(X) calls X(name) for each; st->str_name holds it. */
#ifndef BOLIDE_COMMON_STRINGS_H
#define BOLIDE_COMMON_STRINGS_H

#define BOLIDE_STRINGS(X)                                                                                              \
    X(Task)                                                                                                            \
    X(_asyncio_future_blocking)                                                                                        \
    X(_attach)                                                                                                         \
    X(_closed)                                                                                                         \
    X(_decref_socketios)                                                                                               \
    X(_detach)                                                                                                         \
    X(_handle_signal)                                                                                                  \
    X(_io_refs)                                                                                                        \
    X(_take_own_socket)                                                                                                \
    X(add_done_callback)                                                                                               \
    X(buffer_updated)                                                                                                  \
    X(call_exception_handler)                                                                                          \
    X(cancelled)                                                                                                       \
    X(cipher)                                                                                                          \
    X(close)                                                                                                           \
    X(compression)                                                                                                     \
    X(connection_lost)                                                                                                 \
    X(connection_made)                                                                                                 \
    X(context)                                                                                                         \
    X(data_received)                                                                                                   \
    X(do_handshake)                                                                                                    \
    X(error_received)                                                                                                  \
    X(datagram_received)                                                                                               \
    X(detach)                                                                                                          \
    X(done)                                                                                                            \
    X(eager_start)                                                                                                     \
    X(eof_received)                                                                                                    \
    X(exception)                                                                                                       \
    X(fileno)                                                                                                          \
    X(get_buffer)                                                                                                      \
    X(getpeercert)                                                                                                     \
    X(getpeername)                                                                                                     \
    X(getsockname)                                                                                                     \
    X(handle)                                                                                                          \
    X(loop)                                                                                                            \
    X(message)                                                                                                         \
    X(name)                                                                                                            \
    X(pause_writing)                                                                                                   \
    X(peercert)                                                                                                        \
    X(peername)                                                                                                        \
    X(pending)                                                                                                         \
    X(protocol)                                                                                                        \
    X(read)                                                                                                            \
    X(resume_writing)                                                                                                  \
    X(set_exception)                                                                                                   \
    X(set_result)                                                                                                      \
    X(slow_callback_duration)                                                                                          \
    X(socket)                                                                                                          \
    X(sockname)                                                                                                        \
    X(source_traceback)                                                                                                \
    X(ssl_object)                                                                                                      \
    X(sslcontext)                                                                                                      \
    X(transport)                                                                                                       \
    X(type)                                                                                                            \
    X(unwrap)                                                                                                          \
    X(warning)                                                                                                         \
    X(write)

#endif
