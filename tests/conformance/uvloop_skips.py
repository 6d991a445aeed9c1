"""The tests of uvloop's own suite that judge uvloop's private parts rather than the behaviour of a loop."""

from fnmatch import fnmatchcase

# Modules that import what only uvloop's extension module has.
MODULES = {
    "test_cython": "about Cython coroutines of uvloop's own",
    "test_fs_event": "uvloop's private FileSystemEvent handle",
    "test_libuv_api": "uvloop's private access to the uv_loop_t",
    "test_sourcecode": "flake8 and mypy over uvloop's sources",
    "test_testbase": "about the helpers of the suite itself",
}

# Pattern of `module.Class.test` (fnmatch) -> why it is left out.
SKIPS: dict[str, str] = {
    "test_base.TestBaseUV.test_thread_name_prefix_in_default_executor": "the names of uvloop's own threads",
    "test_process.Test_UV_Process.test_process_double_close": "counts uvloop's own calls of os.dup() and os.close()",
    "test_process.Test_UV_Process_Delayed.*": "a private argument, __uvloop_sleep_after_fork",
    "test_runner.TestSourceCode.test_uvloop_run_2": "the text of a message with uvloop's name in it",
    "test_signals.Test_UV_Signals.test_signals_no_SIGCHLD": "uvloop forbids a handler of SIGCHLD, asyncio does not",
    "test_tcp.Test_UV_TCPSSL.test_shutdown_timeout_handler_not_set": (
        "wants bytes lost that came before a FIN while reading was paused; the test of this name in CPython's suite, "
        "which is held to, wants them delivered after resume_reading()"
    ),
    "test_sockets.TestUVSockets.test_pseudosocket": "the repr of uvloop's own PseudoSocket, and its messages",
    "test_sockets.TestUVSockets.test_socket_sync_remove": "a private method, _get_backend_id()",
    "test_tcp.Test_UV_TCP.test_create_server_buffered_2": (
        "uvloop wraps what get_buffer() raises in a RuntimeError of its own, asyncio passes it to connection_lost()"
    ),
    "test_tcp.Test_UV_TCP.test_tcp_handle_abort_in_connection_made": (
        "wants no `socket` after abort(); the test says that asyncio gives a closed one"
    ),
    "test_tcp.Test_UV_TCPSSL.test_flush_before_shutdown": 'uvloop\'s private get_extra_info("uvloop.sslproto")',
    "test_udp.Test_UV_UDP.test_create_datagram_endpoint_reuse_address_*": "an argument that Python 3.11 removed",
    "test_udp.Test_UV_UDP.test_create_datagram_endpoint_wrong_sock": "the text of a message",
    "test_udp.Test_UV_UDP.test_udp_sendto_dns": "uvloop refuses host names in sendto(), asyncio resolves them",
}


def reason_to_skip(name: str) -> str | None:
    """Why the test `module.Class.test` is left out, or None when it is run."""
    return next((reason for pattern, reason in SKIPS.items() if fnmatchcase(name, pattern)), None)
