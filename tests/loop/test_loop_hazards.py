"""Ways in which Python code called from C can pull the ground from under it. Each once crashed, hung or mixed up data.

In processes of their own, because a failure may be a crash.
"""

import pytest
from support.loops import only_bolide, run_script


@pytest.mark.parametrize("make", ["loop.call_soon(print, handle)", "loop.call_later(9 + i, print, handle)"])
def test_a_long_chain_of_handles_is_freed_without_recursion(make):
    run_script(
        f"""
        loop = new_event_loop()
        handle = None
        for i in range(300_000):
            handle = {make}
        del handle
        loop.close()
        """
    )


@pytest.mark.parametrize("when", ["0", "-1", "float('-inf')"])
def test_call_at_a_time_long_past_from_a_callback(when):
    run_script(
        f"""
        signal.alarm(20)
        loop = new_event_loop()
        loop.call_soon(lambda: loop.call_at({when}, loop.stop))
        loop.run_forever()
        """
    )


def test_a_handle_run_by_another_thread_while_the_loop_runs_it():
    """The method is asyncio's own business, but it is there: the arguments must live as long as the call."""
    run_script(
        """
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        started = threading.Event()
        class Slow(list):
            def __iter__(self):
                started.set()
                time.sleep(0.1)
                return super().__iter__()
        handle = loop.call_soon(sorted, Slow([3, 1, 2]))
        thread = threading.Thread(target=handle._run)
        thread.start()
        started.wait()
        loop.call_soon(loop.stop)
        loop.run_forever()
        thread.join()
        """
    )


@only_bolide
def test_a_handle_that_has_run_in_debug_mode_keeps_nothing():
    run_script(
        """
        import weakref
        loop = new_event_loop()
        loop.set_debug(True)
        class Thing: pass
        thing = Thing()
        ref = weakref.ref(thing)
        handle = loop.call_soon(id, thing)
        del thing
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert ref() is None
        """
    )


@only_bolide
@pytest.mark.parametrize("change", ["op.close()", "op.close(); del buffer[:]; buffer.extend(bytes(100_000))"])
def test_a_socket_operation_closed_by_the_fileno_of_its_socket(change):
    run_script(
        f"""
        loop = new_event_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        right.send(b"x" * 100)
        class Odd(socket.socket):
            def fileno(self):
                {change}
                return super().fileno()
        buffer = bytearray(100)
        op = loop.sock_recv_into(Odd(fileno=left.detach()), buffer)
        try:
            op.send(None)
        except RuntimeError:
            pass
        else:
            raise AssertionError
        loop.close()
        """
    )


@only_bolide
@pytest.mark.parametrize(
    "prank", ["op.close()", "op.throw(KeyError())", "op.send(None)", "loop.close()", "op.__next__()"]
)
@pytest.mark.parametrize("error", ["BlockingIOError", "OSError", "None"])
def test_a_socket_operation_meddled_with_by_a_method_of_its_socket(prank, error):
    """What connect() and accept() of an odd socket do to the operation that calls them."""
    run_script(
        f"""
        class Odd(socket.socket):
            def prank(self):
                try:
                    {prank}
                except (KeyError, RuntimeError, ValueError):
                    pass
                if {error}:
                    raise {error}
            def connect(self, address):
                self.prank()
            def accept(self):
                self.prank()
                return super().accept()
        for name, arguments in (("sock_accept", ()), ("_sock_connect_resolved", (("127.0.0.1", 9),))):
            loop = new_event_loop()
            with Odd() as odd:
                odd.bind(("127.0.0.1", 0))
                odd.listen()
                odd.setblocking(False)
                op = getattr(loop, name)(odd, *arguments)
                try:
                    op.send(None)
                except (OSError, RuntimeError, StopIteration):
                    pass
                op.close()
                del op
            loop.close()
        """
    )


@only_bolide
@pytest.mark.parametrize("answer", ["None", "()", "(None, None)", "(1, 2, 3)", "[odd, None]"])
def test_an_accept_that_returns_no_connection(answer):
    run_script(
        f"""
        class Odd(socket.socket):
            def accept(self):
                return {answer}
        loop = new_event_loop()
        with Odd() as odd:
            odd.setblocking(False)
            async def accept():
                return await loop.sock_accept(odd)
            try:
                loop.run_until_complete(accept())
            except (TypeError, AttributeError):
                pass
            else:
                raise AssertionError
        loop.close()
        """
    )


def test_a_watcher_removed_while_the_other_side_of_its_descriptor_is_resumed():
    """set_result() of the waiting future calls the loop's call_soon(), which a subclass may define."""
    run_script(
        """
        kind = type(new_event_loop())
        class Odd(kind):
            prank = None
            def call_soon(self, *args, **kwargs):
                prank, self.prank = self.prank, None
                if prank is not None:
                    prank()
                return super().call_soon(*args, **kwargs)
        loop = Odd()
        left, right = socket.socketpair()
        left.setblocking(False)
        called = []
        def prank():
            loop.remove_writer(left)
            copies = [os.dup(right.fileno()) for _ in range(200)]
            loop.add_reader(copies[-1], print)
            loop.remove_reader(copies[-1])
            for copy in copies:
                os.close(copy)
            loop.add_writer(left, called.append, "new")
            gc.collect()
        async def main():
            async def receive():
                return await loop.sock_recv(left, 10)
            task = loop.create_task(receive())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            loop.add_writer(left, called.append, "old")
            loop.prank = prank
            right.send(b"x")
            assert await task == b"x"
            while "new" not in called:
                await asyncio.sleep(0)
            loop.remove_writer(left)
        loop.run_until_complete(main())
        """
    )


@only_bolide
@pytest.mark.rss
def test_a_number_that_is_no_descriptor_costs_no_memory():
    result = run_script(
        """
        loop = new_event_loop()
        try:
            loop.add_reader(16_000_000, print)
        except OSError:
            pass
        with open("/proc/self/status") as status:  # ru_maxrss would count the process that started this one, too
            print(*[int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")])
        """
    )
    assert int(result.stdout) < 400


CLOSED_MEANWHILE = [
    "loop._make_socket_transport(Sock(pair), asyncio.Protocol())",
    "loop._make_socket_transport(pair, asyncio.Protocol(), extra=Mapping())",
    "loop._listen(listening, asyncio.Protocol, Number(), None, None)",
    "loop._listen(Sock(listening), asyncio.Protocol, 100, None, None)",
    "loop._make_datagram_transport(Sock(datagram), asyncio.DatagramProtocol())",
    "loop._make_datagram_transport(datagram, asyncio.DatagramProtocol(), None, None, Mapping())",
    "Server(loop, print, timeout_keep_alive=Number())",
    "Server(loop, print).listen(Sock(listening))",
    "Server(loop, print).listen(listening, Number())",
    "loop.add_reader(Sock(pair), print)",
    "loop.call_later(Number(), print)",
    "loop.sock_recv(Sock(pair), 100).send(None)",
    "loop.sock_accept(Sock(listening)).send(None)",
    "loop.sock_connect(Sock(datagram), ('127.0.0.1', 9)).send(None)",
]


@only_bolide
@pytest.mark.parametrize("call", CLOSED_MEANWHILE)
def test_a_loop_that_an_argument_closes(call):
    run_script(
        f"""
        from bolide._core import Server
        loop = new_event_loop()
        pair, other = socket.socketpair()
        pair.setblocking(False)
        listening = socket.create_server(("127.0.0.1", 0))
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        class Sock:
            def __init__(self, sock):
                self.sock = sock
            def fileno(self):
                loop.close()
                return self.sock.fileno()
            def __getattr__(self, name):
                return getattr(self.sock, name)
        class Mapping:
            def keys(self):
                loop.close()
                return []
        class Number:
            def __index__(self):
                loop.close()
                return 100
            def __float__(self):
                loop.close()
                return 1.0
        try:
            {call}
        except (OSError, RuntimeError) as error:
            print(error)
        else:
            raise AssertionError("nothing was raised")
        del loop
        gc.collect()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
def test_a_loop_that_the_lookup_of_its_methods_closes():
    """The loop looks for methods that a subclass has replaced, right before it runs."""
    result = run_script(
        """
        signal.alarm(20)
        kind = type(new_event_loop())
        class Evil(kind):
            armed = False
            def __getattribute__(self, name):
                if name == "time" and object.__getattribute__(self, "armed"):
                    self.armed = False
                    self.close()
                return super().__getattribute__(name)
        loop = Evil()
        loop.armed = True
        try:
            loop.run_forever()
        except RuntimeError as error:
            print(error)
        """,
        options=("-W", "ignore"),
    )
    assert result.stdout == "Event loop is closed\n"


@pytest.mark.parametrize("look", ["list(handle._args or ())", "repr(handle)"])
def test_a_handle_that_the_garbage_collector_cancels_while_it_is_looked_at(look):
    """CPython 3.11 collects when a tuple is made, also the one for the arguments."""
    run_script(
        f"""
        loop = new_event_loop()
        class Cancels:
            def __init__(self):
                self.cycle = self
            def __del__(self):
                handle.cancel()
        gc.disable()
        handle = loop.call_soon(print, *map(str, range(30)))
        Cancels()
        gc.enable()
        gc.set_threshold(1, 1, 1)
        {look}
        gc.set_threshold(700, 10, 10)
        loop.close()
        """
    )


def test_the_same_keyword_of_a_task_many_times():
    """Python lets a caller have it so with instances of a subclass of str."""
    run_script(
        """
        class Key(str):
            __hash__ = object.__hash__
            def __eq__(self, other):
                return self is other
        async def nothing():
            pass
        loop = new_event_loop()
        coroutine = nothing()
        try:
            loop.create_task(coroutine, **{Key("name"): str(i) for i in range(300)})
        except TypeError:
            coroutine.close()
        else:
            raise AssertionError("nothing was raised")
        loop.close()
        """
    )


@only_bolide
def test_a_socket_operation_that_cannot_be_resumed_is_reported():
    """The future cannot schedule what waits for it: the error must not vanish."""
    run_script(
        """
        class Broken(type(new_event_loop())):
            broken = False
            def call_soon(self, *args, **kwargs):
                if self.broken:
                    self.broken = False
                    raise ValueError("broken")
                return super().call_soon(*args, **kwargs)
        loop = Broken()
        reports = []
        def report(loop, context):
            reports.append(context["exception"])
            loop.stop()
        loop.set_exception_handler(report)
        left, right = socket.socketpair()
        left.setblocking(False)
        async def receive():
            await loop.sock_recv(left, 10)
        task = loop.create_task(receive())
        def break_it():
            right.send(b"x")
            loop.broken = True
        loop.call_later(0.01, break_it)
        loop.run_forever()
        assert isinstance(reports[0], ValueError), reports
        os._exit(0)
        """
    )


@only_bolide
def test_a_loop_that_the_replaced_reader_closes():
    run_script(
        """
        loop = new_event_loop()
        left, right = socket.socketpair()
        class Closing:
            def __call__(self): pass
            def __del__(self): loop.close()
        loop.add_reader(left, Closing())
        loop.add_reader(left, print)
        assert loop.is_closed()
        """
    )


@only_bolide
def test_a_loop_whose_end_calls_its_close():
    """What hangs on a loop is let go of while it closes."""
    run_script(
        """
        loop = new_event_loop()
        class Closing:
            closed = 0
            def __call__(self): pass
            def __del__(self):
                Closing.closed += 1
                loop._close()
        left, right = socket.socketpair()
        loop.add_reader(left, Closing())
        loop.call_soon(Closing())
        loop.call_later(9, Closing())
        class Sock(socket.socket):
            def close(self):
                Closing.closed += 1
                loop._close()
                super().close()
        ends = socket.socketpair()
        loop.run_until_complete(
            loop.create_connection(asyncio.Protocol, sock=Sock(fileno=ends[0].detach()))
        )
        loop.close()
        gc.collect()
        assert Closing.closed == 4, Closing.closed
        """
    )


@only_bolide
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_loop_that_the_socket_of_a_transport_closes(by_hand):
    run_script(
        """
        by_hand = sys.argv[1] == "True"
        signal.alarm(20)
        loop = new_event_loop()
        closed = []
        class Sock(socket.socket):
            def close(self):
                closed.append(self)
                loop.close()
                super().close()
        left, right = socket.socketpair()
        sock = Sock(fileno=left.detach())
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=sock))
        transport.abort()
        if by_hand: # what else is called while the loop runs, which cannot be closed then
            transport._call_connection_lost(None)
            assert loop.is_closed() and sock.fileno() == -1
        else:
            loop.run_until_complete(asyncio.sleep(0))
            assert closed and not loop.is_closed()
            loop.close()
            socket.socket.close(sock)
        assert right.recv(1) == b""
        """,
        str(by_hand),
    )


@only_bolide
@pytest.mark.parametrize("where", ["connection_lost", "_detach"])
def test_a_loop_that_is_closed_at_the_end_of_a_transport(where):
    run_script(
        """
        signal.alarm(20)
        loop = new_event_loop()
        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                made.set_result(self)
            def connection_lost(self, exc):
                if sys.argv[1] == "connection_lost":
                    loop.close()
        async def main():
            global server
            server = await loop.create_server(Protocol, "127.0.0.1", 0)
            peer = socket.create_connection(server.sockets[0].getsockname())
            return peer, await made
        made = loop.create_future()
        peer, protocol = loop.run_until_complete(main())
        if sys.argv[1] == "_detach":
            server._detach = lambda *_: loop.close()
        protocol.transport.abort()
        protocol.transport._call_connection_lost(None)
        assert loop.is_closed() and peer.recv(1) == b""
        """,
        where,
    )


@only_bolide
def test_the_poll_of_an_idle_loop_ends_for_other_threads():
    """The loop has nothing to do: it must not go back to its poll before the other thread has had its turn."""
    run_script(
        """
        signal.alarm(40)
        loop = new_event_loop()
        left, right = socket.socketpair()
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=left))
        def meddle():
            for _ in range(100):
                transport.pause_reading()
                transport.resume_reading()
                transport.write(b"x")
            got = 0
            while got < 100:
                got += len(right.recv(1000))
            transport.abort()
            assert right.recv(1) == b""
            loop.call_soon_threadsafe(loop.stop)
        thread = threading.Thread(target=meddle)
        thread.start()
        loop.run_forever()
        thread.join()
        loop.close()
        """
    )


@only_bolide
def test_transports_used_by_another_thread_while_the_loop_polls():
    """Misuse, but also what a finalizer does that the collector runs in another thread: no damage to the loop."""
    run_script(
        """
        async def main():
            loop = asyncio.get_running_loop()
            done = False
            def meddle():
                for _ in range(300):
                    for transport in list(transports):
                        transport.pause_reading()
                        transport.resume_reading()
                        transport.write(b"x" * 100_000)
                    if transports:
                        transports.pop().abort()
            transports = []
            threads = [threading.Thread(target=meddle) for _ in range(3)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                left, right = socket.socketpair()
                for end in (left, right):
                    transport, _ = await loop.create_connection(asyncio.Protocol, sock=end)
                    transports.append(transport)
                await asyncio.sleep(0.0002)
            for transport in transports:
                transport.abort()
            await asyncio.sleep(0)
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        loop.run_until_complete(main())
        loop.close()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
def test_a_transport_closed_in_the_child_of_a_fork_by_another_thread():
    """In the child nobody polls: there is no one to wait for."""
    run_script(
        """
        loop = new_event_loop()
        left, right = socket.socketpair()
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=left))
        def work():
            time.sleep(0.1)
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                transport.abort()
                os._exit(7)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            loop.call_soon_threadsafe(loop.stop)
        codes = []
        threading.Thread(target=work).start()
        loop.run_forever()
        assert codes == [7], codes
        """,
        options=("-W", "ignore"),
    )
