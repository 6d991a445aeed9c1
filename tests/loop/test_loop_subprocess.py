"""subprocess_exec(), subprocess_shell() and what asyncio builds on them."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.loops import new_event_loop, only_bolide, run_script, with_loop

PYTHON = sys.executable


async def output_of(*command: str, **options) -> tuple[int, str]:
    """Exit status and standard output."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, **options)
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def python(program: str, *arguments: str, **options) -> str:
    """What a Python program prints."""
    status, out = await output_of(PYTHON, "-c", program, *arguments, **options)
    assert status == 0
    return out.strip()


def zombies() -> list[int]:
    """Children of this process that nobody has waited for."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(entry.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_zombies():
    """No test leaves a child that it has not waited for. (Others' ends may be noticed late.)"""
    before = set(zombies())
    yield
    end = time.monotonic() + 20
    while left := set(zombies()) - before:
        assert time.monotonic() < end, left
        time.sleep(0.01)


# --- the basics -----------------------------------------------------------------------------------------------------


@with_loop
async def test_communicate():
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    data = os.urandom(3_000_000)
    assert await process.communicate(data) == (data, b"")
    assert process.returncode == 0


@with_loop
async def test_a_shell():
    process = await asyncio.create_subprocess_shell(
        "read line; echo out $line; echo err >&2; exit 7",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert await process.communicate(b"in\n") == (b"out in\n", b"err\n")
    assert process.returncode == 7
    process = await asyncio.create_subprocess_shell(b"exit 3")
    assert await process.wait() == 3


@with_loop
async def test_signals_to_a_process():
    for send, status in (
        (lambda process: process.terminate(), -signal.SIGTERM),
        (lambda process: process.kill(), -signal.SIGKILL),
        (lambda process: process.send_signal(signal.SIGUSR1), -signal.SIGUSR1),
    ):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        send(process)
        assert await process.wait() == status
        with contextlib.suppress(ProcessLookupError):
            process.kill()


@with_loop
async def test_the_order_of_events():
    """Data, the end of each pipe, the exit; connection_lost() comes last."""
    events = []

    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.done = asyncio.get_running_loop().create_future()

        def connection_made(self, transport):
            events.append("made")

        def pipe_data_received(self, fd, data):
            events.append((fd, data))

        def pipe_connection_lost(self, fd, exc):
            events.append(("lost", fd))

        def process_exited(self):
            events.append("exited")

        def connection_lost(self, exc):
            events.append("lost")
            self.done.set_result(exc)

    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(Protocol, "sh", "-c", "echo out", stderr=None, stdin=None)
    assert transport.get_pid() > 0
    assert transport.get_pipe_transport(1) is not None
    assert transport.get_pipe_transport(2) is None
    assert await protocol.done is None
    assert transport.get_returncode() == 0
    assert events[0] == "made" and events[-1] == "lost"
    assert sorted(map(str, events[1:-1])) == sorted(map(str, [(1, b"out\n"), ("lost", 1), "exited"]))
    assert isinstance(transport, asyncio.SubprocessTransport)
    assert transport.get_extra_info("subprocess").args == ("sh", "-c", "echo out")
    transport.close()


@with_loop
async def test_closing_the_transport_kills():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.subprocess_exec(
        asyncio.SubprocessProtocol, "sleep", "60", stdin=None, stdout=None, stderr=None
    )
    process = transport.get_extra_info("subprocess")
    transport.close()
    while process.returncode is None:
        await asyncio.sleep(0.001)
    assert process.returncode == -signal.SIGKILL
    while process.pid in zombies():
        await asyncio.sleep(0.001)


@with_loop
async def test_a_program_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await asyncio.create_subprocess_exec("no-such-program")
    with pytest.raises((PermissionError, OSError)):
        await asyncio.create_subprocess_exec("/etc/passwd")
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("true", cwd="/no-such-folder")


# --- every argument of Popen that asyncio takes ---------------------------------------------------------------------


@with_loop
async def test_cwd_and_env(tmp_path: Path):
    assert await python("import os; print(os.getcwd())", cwd=tmp_path) == str(tmp_path)
    assert await python("import os; print(os.environ['NAME'])", env={**os.environ, "NAME": "value"}) == "value"


@with_loop
async def test_executable():
    assert (await output_of("another name", "-c", "echo $0", "zero", executable="/bin/sh"))[1] == "zero\n"


@with_loop
async def test_files_as_streams(tmp_path: Path):
    (tmp_path / "in").write_bytes(b"from a file")
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        process = await asyncio.create_subprocess_exec("cat", stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
        assert process.stdin is process.stdout is process.stderr is None
        assert await process.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"from a file"


@with_loop
async def test_one_pipe_for_both():
    program = "echo out; echo err >&2"
    process = await asyncio.create_subprocess_shell(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert await process.communicate() == (b"out\nerr\n", None)


@with_loop
async def test_descriptors():
    read, write = os.pipe()
    try:
        os.write(write, b"x")
        program = "import os, sys; print(os.read(int(sys.argv[1]), 1))"
        assert await python(program, str(read), pass_fds=(read,)) == "b'x'"
        program = "import os, sys\ntry: os.fstat(int(sys.argv[1]))\nexcept OSError: print('closed')"
        assert await python(program, str(read), close_fds=True) == "closed"
        os.set_inheritable(read, True)
        assert await python(program, str(read), close_fds=False) == ""
    finally:
        os.close(read)
        os.close(write)


@with_loop
async def test_sessions_groups_and_umask():
    assert await python("import os; print(os.getsid(0) == os.getpid())", start_new_session=True) == "True"
    assert await python("import os; print(os.getpgrp() == os.getpid())", process_group=0) == "True"
    assert await python("import os; print(os.umask(0))", umask=0o027) == str(0o027)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of preexec_fn with threads
@with_loop
async def test_preexec_fn():
    program = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert await python(program, preexec_fn=lambda: os.nice(1)) == str(min(before + 1, 19))

    def fail():
        raise ZeroDivisionError

    with pytest.raises(subprocess.SubprocessError):
        await asyncio.create_subprocess_exec("true", preexec_fn=fail)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
@with_loop
async def test_users_and_groups():
    status, out = await output_of("/usr/bin/id", "-u", user=65534, cwd="/")
    assert (status, out) == (0, "65534\n")
    status, out = await output_of("/usr/bin/id", "-g", group=65534, cwd="/")
    assert (status, out) == (0, "65534\n")
    status, out = await output_of("/usr/bin/id", "-G", group=65534, extra_groups=[65533], cwd="/")
    assert status == 0 and "65533" in out


@with_loop
async def test_restore_signals():
    """SIGPIPE, which Python ignores, is back to its default in the child; unless asked otherwise."""
    shell = ("sh", "-c", "grep SigIgn /proc/self/status")
    ignored = {}
    for restore in (True, False):
        _, out = await output_of(*shell, restore_signals=restore)
        ignored[restore] = bool(int(out.split()[1], 16) & (1 << (signal.SIGPIPE - 1)))
    assert ignored == {True: False, False: True}


@with_loop
async def test_the_limit_of_a_stream_reader():
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-c", "print('x' * 300 + '\\n' + 'y')", stdout=subprocess.PIPE, limit=100
    )
    with pytest.raises(ValueError, match="longer than limit"):
        await process.stdout.readline()
    await process.communicate()


@with_loop
async def test_arguments_that_asyncio_refuses():
    for options in (
        {"universal_newlines": True},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"shell": True},
        {"bufsize": 5},
    ):
        with pytest.raises(ValueError):
            await asyncio.create_subprocess_exec("true", **options)
    with pytest.raises(ValueError):
        await asyncio.create_subprocess_shell("true", shell=False)
    with pytest.raises(ValueError):
        await asyncio.create_subprocess_shell(["true"])
    with pytest.raises(TypeError):
        await asyncio.create_subprocess_exec("true", no_such_argument=1)
    with pytest.raises(TypeError):
        await asyncio.create_subprocess_exec(5)


# --- exits ----------------------------------------------------------------------------------------------------------


@with_loop
async def test_no_exit_status_is_lost():
    """Hundreds end at once, and each one's status comes to the right object."""

    async def one(status):
        process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {status}")
        return await process.wait()

    wanted = [index % 256 for index in range(200)]
    assert await asyncio.gather(*map(one, wanted)) == wanted


def test_thousands_of_children(loop):
    """One after another and many at once; BOLIDE_TEST_CHILDREN says how many."""
    count = int(os.environ.get("BOLIDE_TEST_CHILDREN", "500"))

    async def main():
        room = asyncio.Semaphore(50)
        seen = []

        async def one():
            async with room:
                process = await asyncio.create_subprocess_exec("true")
                seen.append(await process.wait())

        before = len(os.listdir("/proc/self/fd"))
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())
        assert seen == [0] * count
        while len(os.listdir("/proc/self/fd")) > before + 5:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), 50 + count / 20))


@only_bolide
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd")
@with_loop
async def test_no_thread_waits_for_a_child():
    """On CPython 3.11, too, where asyncio has one for each."""
    threads = threading.active_count()
    children = [await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE) for _ in range(3)]
    assert threading.active_count() == threads
    for child in children:
        child.stdin.close()
        assert await child.wait() == 0


def test_children_of_loops_in_other_threads():
    """No child watcher of the main thread is needed; several loops at once."""
    results = {}

    def body(number):
        async def main():
            return [await output_of("echo", f"{number}-{index}") for index in range(10)]

        loop = new_event_loop()
        try:
            results[number] = loop.run_until_complete(asyncio.wait_for(main(), 40))
        finally:
            loop.close()

    threads = [threading.Thread(target=body, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert results == {number: [(0, f"{number}-{index}\n") for index in range(10)] for number in range(5)}


@with_loop
async def test_many_who_wait_for_one():
    process = await asyncio.create_subprocess_exec("sleep", "0.05")
    assert await asyncio.gather(*(process.wait() for _ in range(20))) == [0] * 20
    assert await process.wait() == 0


@with_loop
async def test_cancelling_who_waits():
    process = await asyncio.create_subprocess_exec("sleep", "60")
    waiting = asyncio.create_task(process.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert process.returncode is None
    process.kill()
    assert await process.wait() == -signal.SIGKILL


def test_a_child_that_outlives_the_loop():
    """Closing the loop leaves no zombie behind and no complaint but asyncio's."""
    run_script("""
    import subprocess
    loop = new_event_loop()
    transport, protocol = loop.run_until_complete(
        loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "60", stdin=None, stdout=None, stderr=None))
    process = transport.get_extra_info("subprocess")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    process.kill()
    process.wait()
    transport._closed = True
    """)


@pytest.mark.rss
@with_loop
async def test_a_reader_that_is_slow():
    """Back-pressure: the child waits, its output is not kept in memory."""
    process = await asyncio.create_subprocess_exec(
        "head", "-c", "20000000", "/dev/zero", stdout=subprocess.PIPE, limit=2**16
    )
    await asyncio.sleep(0.05)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0
    while data := await process.stdout.read(65536):
        total += len(data)
    assert total == 20_000_000
    assert await process.wait() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 15_000


@with_loop
async def test_writing_to_a_child_that_has_gone():
    process = await asyncio.create_subprocess_exec("true", stdin=subprocess.PIPE)
    await process.wait()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(10):
            process.stdin.write(b"x" * 100_000)
            await process.stdin.drain()
    assert await process.communicate(None) == (None, None)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="gone from CPython 3.14")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_watcher_of_the_user(loop):
    """It is asked, whatever the loop would do without it."""
    watched = []

    class Watcher(asyncio.ThreadedChildWatcher):
        def add_child_handler(self, pid, callback, *args):
            watched.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        return process.pid

    policy = asyncio.get_event_loop_policy()
    before = policy.get_child_watcher()
    assert loop.run_until_complete(asyncio.wait_for(main(), 40)) not in watched
    policy.set_child_watcher(Watcher())
    try:
        assert [loop.run_until_complete(asyncio.wait_for(main(), 40))] == watched
    finally:
        policy.set_child_watcher(before)
