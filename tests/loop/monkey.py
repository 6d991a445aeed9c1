"""Calls methods of the loop, its handles, transports and servers with odd arguments, at random, until the time is up.

`monkey.py <module> <seed> <seconds>`: nothing of it may crash the process or hang it. Exceptions are fine. Run by
test_loop_misuse.py; the seed of a failure reproduces it as far as the kernel's timing allows.
"""

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import importlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings

# What would end or block the process by its contract, or act on what is not the test's.
NEVER = {"run_forever", "run_until_complete", "subprocess_shell", "subprocess_exec", "connect_read_pipe"}
NEVER |= {"connect_write_pipe", "add_signal_handler", "set_default_executor", "run_in_executor"}


class Strange:
    """An argument that does things when it is looked at."""

    def __init__(self, monkey):
        self.monkey = monkey

    def _act(self):
        if self.monkey.depth < 3:
            self.monkey.step()

    def __call__(self, *arguments, **keywords):
        self._act()
        return self.monkey.argument()

    def __float__(self):
        self._act()
        return 0.001

    def __index__(self):
        self._act()
        return self.monkey.random.choice([-1, 0, 1, 5, 1 << 40])

    def __bool__(self):
        self._act()
        return self.monkey.random.random() < 0.5

    def __eq__(self, other):
        self._act()
        return False

    def __hash__(self):
        return 1

    def __repr__(self):
        self._act()
        if self.monkey.random.random() < 0.2:
            raise ValueError("repr")
        return "strange"

    def __iter__(self):
        self._act()
        return iter([b"x", self.monkey.argument()])

    def fileno(self):
        self._act()
        return self.monkey.random.choice([-1, 1 << 20, self.monkey.spare_fd(), "no"])

    def __del__(self):
        with contextlib.suppress(Exception):
            self._act()

    async def _sleep(self):
        await asyncio.sleep(0)

    def __await__(self):
        return self._sleep().__await__()


class Protocol(asyncio.Protocol):
    def __init__(self, monkey):
        self.monkey = monkey

    def connection_made(self, transport):
        self.monkey.keep(transport)
        self.monkey.maybe()

    def data_received(self, data):
        self.monkey.maybe()

    def eof_received(self):
        self.monkey.maybe()
        return self.monkey.random.random() < 0.5

    def pause_writing(self):
        self.monkey.maybe()

    def resume_writing(self):
        self.monkey.maybe()

    def connection_lost(self, exc):
        self.monkey.maybe()

    def datagram_received(self, data, address):
        self.monkey.maybe()

    def error_received(self, exc):
        self.monkey.maybe()


class Buffered(Protocol, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.monkey.maybe()
        return self.monkey.random.choice(
            [bytearray(10), bytearray(70000), memoryview(bytearray(9)), bytearray(), b"x", 1]
        )

    def buffer_updated(self, nbytes):
        self.monkey.maybe()


class Monkey:
    def __init__(self, module, seed):
        self.random = random.Random(seed)
        self.new_event_loop = importlib.import_module(module).new_event_loop
        self.loop = None
        self.kept = []
        self.coroutines = []
        self.sockets = []
        self.depth = 0
        self.steps = 0
        self.end = 0.0

    def keep(self, thing):
        self.kept.append(thing)
        if len(self.kept) > 40:
            self.kept.pop(self.random.randrange(40))

    def spare_fd(self):
        """A descriptor of ours, or one that is closed, or a regular file's."""
        choice = self.random.randrange(4)
        if choice == 0 or not self.sockets:
            left, right = socket.socketpair()
            left.setblocking(False)
            right.setblocking(False)
            self.sockets += [left, right]
            if len(self.sockets) > 30:
                self.sockets.pop(0).close()
        if choice == 1:
            return self.sockets[0].fileno()
        if choice == 2:
            return self.file.fileno()
        return self.random.choice(self.sockets).fileno()

    def socket(self):
        self.spare_fd()
        return self.random.choice(self.sockets) if self.sockets else None

    def protocol(self):
        return self.random.choice([Protocol, Buffered])(self)

    def argument(self):
        return self.random.choice(
            [
                lambda: None,
                lambda: -1,
                lambda: 0,
                lambda: 1e-4,
                lambda: float("inf"),
                lambda: float("nan"),
                lambda: 1 << 70,
                lambda: "text",
                lambda: b"bytes",
                lambda: b"x" * self.random.choice([1, 3000, 200_000]),
                lambda: bytearray(b"y" * 5000),
                lambda: memoryview(b"abcdef")[::2],
                lambda: [b"a", bytearray(b"b")],
                lambda: Strange(self),
                lambda: self.protocol,
                lambda: self.protocol(),
                self.socket,
                self.spare_fd,
                lambda: ("127.0.0.1", 0),
                lambda: contextvars.copy_context(),
                lambda: self.loop,
                lambda: self.random.choice(self.kept) if self.kept else None,
                lambda: self.maybe,
                lambda: lambda *_: 1 / 0,
                lambda: self.loop.create_future(),
                lambda: gc.collect,
                lambda: asyncio.sleep(0.0001),
            ]
        )()

    def target(self):
        """Something to call a method of: mostly what the loop gave us."""
        return self.random.choice(self.kept) if self.kept and self.random.random() < 0.6 else self.loop

    def maybe(self, *_, **__):
        if self.random.random() < 0.5 and self.depth < 3:
            self.step()

    def step(self):
        """One call of something."""
        if time.monotonic() > self.end:
            return  # one call leads to more than one other at times
        self.steps += 1
        self.depth += 1
        try:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                if self.random.random() < 0.25:
                    self.useful()
                else:
                    self.odd()
        finally:
            self.depth -= 1

    def useful(self):
        """What gets things going."""
        loop, chance = self.loop, self.random.randrange(12)
        if chance == 0:
            self.coroutines.append(loop.create_server(self.protocol, "127.0.0.1", 0))
        elif chance == 1:
            servers = [kept for kept in self.kept if hasattr(kept, "sockets") and kept.sockets]
            if servers:
                address = self.random.choice(servers).sockets[0].getsockname()
                self.coroutines.append(loop.create_connection(self.protocol, *address))
        elif chance == 2:
            left, right = socket.socketpair()
            for end in (left, right):
                self.coroutines.append(loop.create_connection(self.protocol, sock=end))
        elif chance == 3:
            self.keep(loop.call_soon(self.maybe))
        elif chance == 4:
            self.keep(loop.call_later(self.random.random() / 1000, self.maybe))
        elif chance == 5:
            loop.add_reader(self.spare_fd(), self.maybe)
            loop.add_writer(self.spare_fd(), self.maybe)
        elif chance == 6:
            self.coroutines.append(loop.sock_recv(self.socket(), 100))
            self.coroutines.append(loop.sock_sendall(self.socket(), b"x" * 1000))
        elif chance == 7:
            address = ("127.0.0.1", 0)
            self.coroutines.append(loop.create_datagram_endpoint(self.protocol, local_addr=address))
        elif chance == 8:
            threading.Thread(target=loop.call_soon_threadsafe, args=(self.maybe,)).start()
        elif chance == 9:
            gc.collect()
        elif chance == 10:
            self.kept.clear()
        else:
            transports = [kept for kept in self.kept if isinstance(kept, asyncio.Transport)]
            for transport in transports[:3]:
                transport.write(b"x" * self.random.choice([1, 2000, 300_000]))

    def odd(self):
        """Some method of something, with any arguments."""
        target = self.target()
        names = [name for name in dir(target) if not name.startswith("_") and name not in NEVER]
        name = self.random.choice(names)
        if name == "close" and target is self.loop and self.random.random() < 0.9:
            return
        value = getattr(target, name)
        if not callable(value):
            if self.random.random() < 0.2:
                setattr(target, name, self.argument())
            return
        arguments = [self.argument() for _ in range(self.random.choice([0, 0, 1, 1, 1, 2, 2, 3, 4]))]
        result = value(*arguments)
        if asyncio.iscoroutine(result):
            self.coroutines.append(result)
        elif result is not None:
            self.keep(result)

    async def wait_for_some(self):
        made, self.coroutines = self.coroutines, []
        tasks = []
        for coroutine in made:
            with contextlib.suppress(Exception):
                tasks.append(asyncio.ensure_future(coroutine))
        if tasks:
            await asyncio.wait(tasks, timeout=0.02)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, tuple):
                for part in result:
                    self.keep(part)
            elif result is not None and not isinstance(result, BaseException):
                self.keep(result)

    async def main(self, end):
        while time.monotonic() < end:
            for _ in range(self.random.randrange(1, 12)):
                self.step()
            await self.wait_for_some()
            if self.random.random() < 0.02:
                return

    def stop_the_loop(self):
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)

    def run(self, seconds, file):
        self.file = file
        self.end = end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.loop = loop = self.new_event_loop()
            watchdog = threading.Timer(end - time.monotonic() + 1, self.stop_the_loop)  # a task may wait for ever
            watchdog.start()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                loop.set_debug(self.random.random() < 0.3)
                loop.run_until_complete(self.main(end))
            watchdog.cancel()
            with contextlib.suppress(Exception):
                if not loop.is_running():
                    loop.close()
            for _ in range(20):
                self.step()
            for coroutine in self.coroutines:
                with contextlib.suppress(Exception):
                    coroutine.close()
            self.coroutines.clear()
            if self.random.random() < 0.3:
                self.kept.clear()
                gc.collect()
        print(self.steps, "steps")


def interrupt(*_):
    raise KeyboardInterrupt


def main(make, seconds):
    """Run the monkey that make() returns."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 20, exit=True)
    warnings.simplefilter("ignore")
    logging.disable()
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # asyncio's own code may be led to loop for ever; what C code cannot be interrupted is what faulthandler ends.
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds + 3, 1)
    with open(__file__) as file:
        monkey = make()
        try:
            monkey.run(seconds, file)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(monkey.steps, "steps, interrupted")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(lambda: Monkey(sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
