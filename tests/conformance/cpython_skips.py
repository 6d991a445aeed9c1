"""The tests of CPython's own asyncio suite that judge asyncio's Python internals rather than the behaviour of a loop.

They are left out for every loop alike. A pattern is matched against `module.Class.test` (fnmatch); the reason says
which internal the test looks at.
"""

from fnmatch import fnmatchcase

# Module -> the classes that are run, when the rest of the module is about something else than a loop in use.
CLASSES: dict[str, tuple[str, ...] | None] = {
    # The same tests stand there once more for each kind of selector.
    "test_events": (
        "EPollEventLoopTests",
        "TestAsyncGen",
        "HandleTests",
        "TimerTests",
        "PolicyTests",
        "RunningLoopTests",
        "AbstractEventLoopTests",
        "TestPyGetEventLoop",
        "TestCGetEventLoop",
        "TestServer",
    ),
    "test_sock_lowlevel": ("EPollEventLoopTests",),
    "test_sendfile": ("EPollEventLoopTests",),
    "test_sslproto": ("SelectorStartTLSTests",),  # the others drive SSLProtocol by hand, with mocks for the loop
    "test_unix_events": ("TestFunctional", "TestFork"),  # the others are about asyncio's transports, with mocks
    "test_buffered_proto": None,
    "test_context": None,
    "test_eager_task_factory": None,
    "test_free_threading": None,
    "test_futures": None,
    "test_futures2": None,
    "test_graph": None,
    "test_locks": None,
    "test_pep492": None,
    "test_queues": None,
    "test_runners": None,
    "test_server": None,
    "test_ssl": None,
    "test_staggered": None,
    "test_streams": None,
    "test_subprocess": None,
    "test_taskgroups": None,
    "test_tasks": None,
    "test_threads": None,
    "test_timeouts": None,
    "test_tools": None,
    "test_waitfor": None,
}

SKIPS = {
    "test_events.*.test_timeout_rounding": "counts the calls of BaseEventLoop._run_once()",
    "test_events.*.test_call_soon_threadsafe_handle_*": "asserts that the handle is asyncio.events._ThreadSafeHandle",
    "test_sslproto.*.test_create_connection_ssl_failed_certificate_no_cycles": "patches asyncio.sslproto.SSLProtocol",
    "test_ssl.*.test_remote_shutdown_receives_trailing_data_on_slow_socket": "replaces _SelectorSocketTransport._sock",
    "test_events.*.test_internal_fds": "counts the descriptors in BaseSelectorEventLoop._internal_fds",
}


def reason_to_skip(name: str) -> str | None:
    """Why the test `module.Class.test` is left out, or None when it is run."""
    for pattern, reason in SKIPS.items():
        if fnmatchcase(name, pattern):
            return reason
    return None
