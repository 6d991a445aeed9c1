"""fork(): what the child does with loops, its own and inherited ones, does not reach the parent's."""

import os
import subprocess
import sys
import textwrap

import pytest
from support.loops import only_bolide, run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")

HELPERS = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() with threads

def fork(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            function()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid

def wait(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"

async def echo_server():
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()

async def check_echo(address, count=3):
    reader, writer = await asyncio.open_connection(*address)
    for index in range(count):
        writer.write(b"%d\\n" % index)
        assert await reader.readline() == b"%d\\n" % index
    writer.close()
    await writer.wait_closed()
"""


def run(source: str) -> str:
    return run_script(HELPERS + textwrap.dedent(source)).stdout


def test_a_new_loop_in_a_child_of_a_running_loop():
    """As asyncio: in the child no loop runs, so that one can be made and run; the parent's goes on."""
    run("""
    async def in_child():
        assert asyncio.get_running_loop() is not outer
        server, address = await echo_server()
        await check_echo(address)
        assert await asyncio.get_running_loop().run_in_executor(None, os.getpid) == os.getpid()
        server.close()

    def child():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise AssertionError("a loop runs in the child")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(in_child())

    async def main():
        global outer
        outer = asyncio.get_running_loop()
        server, address = await echo_server()
        await check_echo(address)
        pid = fork(child)
        await check_echo(address)
        await outer.run_in_executor(None, wait, pid)
        await check_echo(address)
        server.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
    """)


@only_bolide
@pytest.mark.parametrize("end", ["loop.close()", "del loop; gc.collect()"])
def test_an_inherited_loop_closed_in_the_child(end):
    """Servers, connections, readers, timers and signal handlers of the parent stay as they are."""
    run(f"""
    loop = new_event_loop()
    first, second = socket.socketpair()
    first.setblocking(False)
    hits, signals = [], []
    loop.add_signal_handler(signal.SIGUSR1, signals.append, 1)
    loop.add_reader(first, lambda: hits.append(first.recv(1)))
    server, address = loop.run_until_complete(echo_server())
    reader, writer = loop.run_until_complete(asyncio.open_connection(*address))

    def child():
        global loop, server, reader, writer
        server.close()
        writer.close()
        loop.remove_reader(first)
        loop.close()
        del server, reader, writer
        {end}

    wait(fork(child))

    async def still_there():
        timer = loop.create_future()
        loop.call_later(0.01, timer.set_result, None)
        await timer
        await check_echo(address)
        writer.write(b"after\\n")
        assert await reader.readline() == b"after\\n"
        second.send(b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        while not (hits and signals):
            await asyncio.sleep(0.01)
        assert hits == [b"x"] and signals == [1], (hits, signals)
        await loop.run_in_executor(None, time.sleep, 0)
        writer.close()
        server.close()

    loop.run_until_complete(asyncio.wait_for(still_there(), 30))
    loop.close()
    """)


@only_bolide
def test_an_inherited_loop_used_in_the_child():
    """It works there too, with its own readers, timers, servers, signal handlers and threads, beside the parent's."""
    run("""
    loop = new_event_loop()
    loop.run_until_complete(loop.run_in_executor(None, time.sleep, 0))  # there is a thread
    first, second = socket.socketpair()
    first.setblocking(False)
    signals = []
    loop.add_signal_handler(signal.SIGUSR1, signals.append, os.getpid())

    async def work(name):
        server, address = await echo_server()
        await check_echo(address, 20)
        one, other = socket.socketpair()
        one.setblocking(False)
        seen = loop.create_future()
        loop.add_reader(one, seen.set_result, None)
        other.send(b"x")
        await seen
        loop.remove_reader(one)
        assert await loop.run_in_executor(None, os.getpid) == os.getpid()
        await asyncio.sleep(0.01)
        server.close()
        one.close()
        other.close()

    def child():
        loop.run_until_complete(asyncio.wait_for(work("child"), 20))
        hits = []
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGUSR2, hits.append, 2)
        async def signalled():
            os.kill(os.getpid(), signal.SIGUSR2)
            while not hits:
                await asyncio.sleep(0.01)
        loop.run_until_complete(asyncio.wait_for(signalled(), 20))
        loop.close()

    children = [fork(child) for _ in range(3)]
    loop.run_until_complete(asyncio.wait_for(work("parent"), 20))
    for pid in children:
        wait(pid)
    assert signals == []
    loop.run_until_complete(asyncio.wait_for(work("parent"), 20))
    loop.close()
    """)


@only_bolide
def test_a_reader_of_the_parent_in_the_child():
    """Each process has events of its own: what one takes out of the set stays in the other's."""
    run("""
    loop = new_event_loop()
    first, second = socket.socketpair()
    first.setblocking(False)
    told = loop.create_future()
    loop.add_reader(first, lambda: (loop.remove_reader(first), told.set_result(None)))

    def child():
        loop.run_until_complete(asyncio.wait_for(told, 20))
        loop.close()

    pid = fork(child)
    second.send(b"x")
    wait(pid)
    loop.run_until_complete(asyncio.wait_for(told, 20))
    loop.close()
    """)


@only_bolide
def test_workers_forked_after_a_server_was_made():
    """The loop and its server are inherited, as in pre-fork servers: every worker accepts."""
    run("""
    loop = new_event_loop()

    async def serve(reader, writer):
        writer.write(b"%d" % os.getpid())
        await writer.drain()
        writer.close()
        asyncio.get_running_loop().stop()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    pids = [fork(loop.run_forever) for _ in range(4)]  # each serves one client
    seen = set()
    for _ in pids:
        with socket.create_connection(address, timeout=20) as client:
            seen.add(int(client.recv(100)))
    assert seen == set(pids), (seen, pids)
    for pid in pids:
        wait(pid)
    server.close()
    loop.close()
    """)


@only_bolide
def test_a_signal_to_the_child_is_not_the_parents():
    """CPython 3.11 would let it through the shared wake-up descriptor, in asyncio."""
    run("""
    async def main():
        loop = asyncio.get_running_loop()
        signals = []
        loop.add_signal_handler(signal.SIGUSR1, signals.append, 1)
        read, write = os.pipe()

        def child():
            for _ in range(10):
                os.kill(os.getpid(), signal.SIGUSR1)

        pid = fork(child)
        await loop.run_in_executor(None, wait, pid)
        await asyncio.sleep(0.05)
        assert signals == []
        os.kill(os.getpid(), signal.SIGUSR1)
        while not signals:
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
    """)


@pytest.mark.parametrize("moment", ["waits", "works"])
def test_a_loop_that_another_thread_ran(moment):
    """Its thread is not in the child: there it cannot be closed or run, but does no harm, and new loops work."""
    run(f"""
    moment = {moment!r}
    loop = new_event_loop()
    first, second = socket.socketpair()
    first.setblocking(False)
    hits = []
    ready = threading.Event()
    release = threading.Event()

    def on_readable():
        hits.append(first.recv(1))
        if moment == "works":
            ready.set()
            release.wait(20)

    def body():
        asyncio.set_event_loop(loop)
        loop.add_reader(first, on_readable)
        loop.call_later(60, print)
        loop.call_soon(ready.set) if moment == "waits" else second.send(b"x")
        loop.run_forever()

    thread = threading.Thread(target=body)
    thread.start()
    assert ready.wait(20)

    async def nothing():
        await asyncio.sleep(0.01)
        return 1

    def child():
        assert loop.is_running() and not loop.is_closed()
        loop.call_soon_threadsafe(print)
        for method in (loop.close, loop.run_forever):
            try:
                method()
            except RuntimeError:
                pass
            else:
                raise AssertionError(method)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            assert runner.run(nothing()) == 1
        gc.collect()

    wait(fork(child))
    release.set()
    before = len(hits)
    second.send(b"y")
    deadline = time.monotonic() + 20
    while len(hits) == before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert hits[-1] == b"y", hits
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    assert not thread.is_alive()
    loop.close()
    """)


@only_bolide
def test_fork_while_another_thread_waits_for_the_end_of_the_poll():
    """That thread, which keeps the loop out of further polls until it has had its turn, is not in the child."""
    result = run("""
    sys.setswitchinterval(100)  # the loop's thread keeps the GIL from the end of the poll to the fork
    counted = 0

    class Counting(type(new_event_loop())):
        def time(self):
            global counted
            counted += 1
            return super().time()

    loop = Counting()
    pids = []

    def on_wake():
        global counted
        pids.append(os.fork())
        if pids[0] > 0:
            loop.stop()
        else:
            signal.alarm(30)
            counted = 0
            loop.call_later(0.5, leave)

    def leave():
        print("idle" if counted < 100 else f"{counted} turns", flush=True)
        os._exit(0)

    def other_thread():
        while loop._thread_id is None:
            time.sleep(0.001)
        time.sleep(0.2)  # in the poll by now, else there is nothing to wait for
        loop.call_soon_threadsafe(on_wake)
        transport.abort()

    ours, other = socket.socketpair()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
    thread = threading.Thread(target=other_thread)
    thread.start()
    loop.run_forever()
    thread.join()
    wait(pids[0])
    loop.close()
    """)
    assert result == "idle\n"


def test_fork_in_a_protocol_method():
    """There libuv is in the midst of its events."""
    run("""
    class Forks(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            def child():
                async def nothing():
                    await asyncio.sleep(0)
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(nothing())
            pids.append(fork(child))
            self.transport.write(data)

    pids = []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Forks, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await asyncio.gather(*(check_echo(address, 4) for _ in range(3)))
        server.close()
        for pid in pids:
            await loop.run_in_executor(None, wait, pid)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
    assert pids
    """)


def test_multiprocessing_with_the_context_fork():
    """Processes and process pools started from a running loop, whose workers run loops of their own."""
    run("""
    import concurrent.futures, multiprocessing
    context = multiprocessing.get_context("fork")

    async def nothing():
        await asyncio.sleep(0.001)
        return os.getpid()

    def in_worker():
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(nothing())

    def send_result(pipe):
        pipe.send(in_worker())

    async def main():
        loop = asyncio.get_running_loop()
        server, address = await echo_server()
        await check_echo(address)
        receiver, sender = context.Pipe(False)
        process = context.Process(target=send_result, args=(sender,))
        process.start()
        assert await loop.run_in_executor(None, receiver.recv) == process.pid
        await loop.run_in_executor(None, process.join)
        assert process.exitcode == 0
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            pids = await asyncio.gather(*(loop.run_in_executor(pool, in_worker) for _ in range(10)))
        assert os.getpid() not in pids
        await check_echo(address)
        server.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 40))
    """)


@only_bolide
def test_a_child_without_descriptors():
    """What cannot be set up anew is not used: OSError, RuntimeError, and the parent goes on."""
    program = """
    import os, resource, sys
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Before bolide's own, which is registered by the import; libuv's is done by then.
    os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard)))
    import bolide
    loop = bolide.new_event_loop()
    loop.call_later(0.001, loop.stop)
    pid = os.fork()
    if pid == 0:
        try:
            loop.run_forever()
        except RuntimeError as error:
            assert "fork" in str(error)
            loop.close()
            os._exit(0 if loop.is_closed() else 1)
        os._exit(2)
    loop.run_forever()
    loop.close()
    _, status = os.waitpid(pid, 0)
    print("child:", status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "child: 0\n"), done
    assert "Too many open files" in done.stderr
