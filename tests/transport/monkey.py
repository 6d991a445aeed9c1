"""Puts TLS, datagrams, pipes, files, children, forks and want of descriptors in a monkey's hands, until time is up.

`monkey.py <seed> <seconds>`: nothing of it may crash the process or hang it. Exceptions are fine. Run by
test_transport_hazards.py; see tests/loop/monkey.py, of which this is another kind.
"""

import asyncio
import contextlib
import gc
import io
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "loop"), str(Path(__file__).parents[1])]
import monkey as of_loop  # noqa: E402
from support.certificates import authority  # noqa: E402

from bolide import _core  # noqa: E402

C_TYPES = tuple(value for value in vars(_core).values() if isinstance(value, type))
# Parts of the loop's own ways of running, closing and forking, which are for the loop alone.
UNTOUCHED = {"_run", "_close", "_after_fork"}
CRASHES = {signal.SIGALRM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class Child(asyncio.SubprocessProtocol):
    """Does something whenever it hears of its process."""

    def __init__(self, monkey):
        self.monkey = monkey

    def connection_made(self, transport):
        self.monkey.keep(transport)

    def pipe_data_received(self, fd, data):
        self.monkey.maybe()

    def pipe_connection_lost(self, fd, exc):
        self.monkey.maybe()

    def process_exited(self):
        self.monkey.maybe()


class Resurrected:
    """Comes back from the dead, where the monkey finds it."""

    def __init__(self, monkey, thing):
        self.monkey = monkey
        self.thing = thing

    def __del__(self):
        self.monkey.keep(self.thing)
        self.monkey.maybe()


class Monkey(of_loop.Monkey):
    """Calls methods of transports of all kinds, and whatever else the garbage collector knows of bolide's."""

    def __init__(self, seed):
        super().__init__("bolide", seed)
        self.server_context = authority().server()
        self.client_context = authority().client()
        self.stranger = ssl.create_default_context()

    def context(self, server_side=False):
        """A context, mostly of the right kind."""
        right = self.server_context if server_side else self.client_context
        return right if self.random.random() < 0.8 else self.random.choice([self.stranger, self.server_context, None])

    def argument(self):
        """As its base, with contexts of TLS and futures of the loop's."""
        if self.random.random() < 0.1:
            return self.random.choice([self.context(), self.loop.create_future(), "localhost", 0.001, True])
        return super().argument()

    def transports(self, kind=asyncio.Transport):
        """What is kept of transports of a kind, in any order."""
        found = [kept for kept in self.kept if isinstance(kept, kind)]
        self.random.shuffle(found)
        return found

    def timeouts(self):
        """Arguments for TLS, of which some end the handshake at once."""
        choices = [{}, {"ssl_handshake_timeout": 0.001}, {"ssl_shutdown_timeout": 0.001}]
        return self.random.choice(choices)

    def pair(self, secure=True):
        """Two connected transports, with TLS from the start or with none."""
        left, right = socket.socketpair()
        one = {"ssl": self.context(), "server_hostname": "localhost", **self.timeouts()} if secure else {}
        two = {"ssl": self.context(True), **self.timeouts()} if secure else {}
        if not one.get("ssl"):
            one = {}
        self.coroutines.append(self.loop.create_connection(self.protocol, sock=left, **one))
        self.coroutines.append(
            self.loop.connect_accepted_socket(self.protocol, right, **(two if two.get("ssl") else {}))
        )

    async def upgrade(self):
        """start_tls() on both ends of a connection."""
        left, right = socket.socketpair()
        one, two = self.protocol(), self.protocol()
        client, _ = await self.loop.create_connection(lambda: one, sock=left)
        server, _ = await self.loop.create_connection(lambda: two, sock=right)
        self.maybe()
        return await asyncio.gather(
            self.loop.start_tls(client, one, self.context(), server_hostname="localhost", **self.timeouts()),
            self.loop.start_tls(server, two, self.context(True), server_side=True, **self.timeouts()),
            return_exceptions=True,
        )

    async def datagrams(self):
        """Two ends that send to each other."""
        made = [await self.loop.create_datagram_endpoint(self.protocol, local_addr=("127.0.0.1", 0)) for _ in range(2)]
        for transport, _ in made:
            for size in (1, 1000, 70_000):
                with contextlib.suppress(Exception):
                    transport.sendto(b"x" * size, made[0][0].get_extra_info("sockname"))
            self.maybe()
        return made[0][0], made[1][0]

    async def pipes(self):
        """The two ends of a pipe."""
        reading, writing = os.pipe()
        reader, writer = open(reading, "rb", 0), open(writing, "wb", 0)  # noqa: SIM115 - the transports close them
        try:
            one = await self.loop.connect_read_pipe(self.protocol, reader)
            self.maybe()
            two = await self.loop.connect_write_pipe(self.protocol, writer)
            two[0].write(b"x" * self.random.choice([1, 100_000]))
            return one[0], two[0]
        except BaseException:
            reader.close()
            writer.close()
            raise

    def send_file(self):
        """sendfile() on some transport, or sock_sendfile()."""
        files = [self.file.buffer, io.BytesIO(b"x" * 100_000), self.argument()]
        for transport in self.transports()[:2]:
            self.coroutines.append(self.loop.sendfile(transport, self.random.choice(files)))
        if self.random.random() < 0.3:
            self.coroutines.append(self.loop.sock_sendfile(self.socket(), self.random.choice(files)))

    def by_hand(self):
        """The other operations on sockets."""
        loop, sock = self.loop, self.socket()
        choices = [
            lambda: loop.sock_recv_into(sock, bytearray(self.random.choice([0, 10, 100_000]))),
            lambda: loop.sock_recvfrom(sock, 100),
            lambda: loop.sock_recvfrom_into(sock, bytearray(10)),
            lambda: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
            lambda: loop.sock_sendall(sock, bytes(1 << 20)),
            lambda: loop.sock_accept(sock),
            lambda: loop.sock_connect(sock, ("127.0.0.1", 9)),
        ]
        self.coroutines += [self.random.choice(choices)() for _ in range(2)]

    def child(self):
        """A process that reads its input, or ends at once."""
        program = self.random.choice(["/bin/cat", "/bin/true", "/nonexistent"])
        options = {"stderr": self.random.choice([subprocess.DEVNULL, subprocess.PIPE])}
        self.coroutines.append(self.loop.subprocess_exec(lambda: Child(self), program, **options))

    def closed_behind(self):
        """Another socket where a transport has its own, or a socket closed while it is in use."""
        for transport in self.transports()[:1]:
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                os.dup2(self.socket().fileno(), sock.fileno())
        if self.sockets and self.random.random() < 0.5:
            self.random.choice(self.sockets).close()

    def few_descriptors(self):
        """Some steps without a free descriptor."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with open("/dev/null") as highest:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno(), hard))
        try:
            for _ in range(3):
                self.step()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def fork(self):
        """Go on in a child for some steps. Its crash is the parent's."""
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # whoever hangs; faulthandler's own timer is of no use in a child
            with contextlib.suppress(BaseException):
                for _ in range(5):
                    self.step()
                if self.random.random() < 0.5:
                    self.loop.stop()
                    asyncio._set_running_loop(None)
                    self.loop.close()
                    gc.collect()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in CRASHES:
            os.abort()

    def find(self):
        """Something that is bolide's own, whether it was given out or not."""
        objects = [
            thing for thing in gc.get_objects() if isinstance(thing, C_TYPES) or "bolide" in type(thing).__module__
        ]
        return self.random.choice(objects) if objects else self.loop

    def pry(self):
        """Any method, private ones too, of anything that was found."""
        thing = self.find()
        names = [name for kind in type(thing).__mro__ if isinstance(thing, C_TYPES) for name in vars(kind)]
        names = [name for name in names if name not in UNTOUCHED | of_loop.NEVER and name != "__class__"]
        name = self.random.choice(names or ["__repr__"])
        if name == "close" and thing is self.loop:
            return
        value = getattr(thing, name)
        if callable(value):
            result = value(*(self.argument() for _ in range(self.random.choice([0, 0, 1, 1, 2, 3, 8, 9, 10]))))
            if asyncio.iscoroutine(result):
                self.coroutines.append(result)
            elif result is not None:
                self.keep(result)

    def rain(self):
        """Signals, with a handler on the loop."""
        self.loop.add_signal_handler(signal.SIGUSR2, self.maybe)
        for _ in range(3):
            signal.raise_signal(signal.SIGUSR2)

    def serve(self):
        """A server with TLS, and clients that speak it or do not."""

        async def connect():
            server = await self.loop.create_server(
                self.protocol, "127.0.0.1", 0, ssl=self.server_context, **self.timeouts()
            )
            self.keep(server)
            address = server.sockets[0].getsockname()
            plain = socket.socket()
            plain.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                plain.connect(address)
            self.sockets.append(plain)
            options = {"ssl": self.context(), "server_hostname": "localhost", **self.timeouts()}
            return await self.loop.create_connection(self.protocol, *address, **(options if options["ssl"] else {}))

        self.coroutines.append(connect())

    def useful(self):
        """What gets things going."""
        chance = self.random.randrange(26)
        if chance < 4:
            self.pair(secure=chance > 0)
        elif chance < 6:
            self.coroutines.append(self.upgrade())
        elif chance < 8:
            self.serve()
        elif chance == 8:
            self.coroutines.append(self.datagrams())
        elif chance == 9:
            self.coroutines.append(self.pipes())
        elif chance == 10:
            self.send_file()
        elif chance == 11:
            self.by_hand()
        elif chance == 12:
            for transport in self.transports((asyncio.Transport, asyncio.DatagramTransport))[:5]:
                with contextlib.suppress(Exception):
                    getattr(
                        transport,
                        self.random.choice(["pause_reading", "resume_reading", "write_eof", "close", "abort"]),
                    )()
        elif chance == 13:
            self.keep(Resurrected(self, self.random.choice(self.kept)))
        elif chance == 14:
            self.rain()
        elif chance < 18:
            self.pry()
        elif self.random.random() < 0.15:
            self.random.choice([self.child, self.fork, self.few_descriptors, self.closed_behind])()
        else:
            super().useful()


if __name__ == "__main__":
    of_loop.main(lambda: Monkey(int(sys.argv[1])), float(sys.argv[2]))
