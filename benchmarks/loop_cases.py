"""Work for an event loop, each piece a coroutine that does it `count` times; loop_worker.py runs one of them.

A case takes the loop and a count, and returns nothing; what it costs is measured around it.
"""

import asyncio
import socket


def nothing(*args):
    return None


async def empty():
    return None


async def call_soon_chain(loop, count):
    """One callback that schedules itself: one a turn."""
    done = loop.create_future()

    def step(left):
        if left:
            loop.call_soon(step, left - 1)
        else:
            done.set_result(None)

    loop.call_soon(step, count)
    await done


async def call_soon_burst(loop, count):
    """100,000 callbacks in one turn."""
    for _ in range(max(1, count // 100_000)):
        done = loop.create_future()
        call_soon = loop.call_soon
        for _ in range(100_000):
            call_soon(nothing)
        call_soon(done.set_result, None)
        await done


async def timer_cancel(loop, count):
    """A timeout that never comes, as around every request: set, cancelled, a turn of the loop every hundred."""
    for _ in range(count // 100):
        for _ in range(100):
            loop.call_later(10, nothing).cancel()
        await asyncio.sleep(0)


async def timer_fire(loop, count):
    """Timers that fire, 1,000 at a time, each due at a moment of its own."""
    for _ in range(max(1, count // 1000)):
        done = loop.create_future()
        for number in range(1000):
            loop.call_later(0.001 + number * 7919 % 1000 * 1e-6, nothing)
        loop.call_later(0.0025, done.set_result, None)
        await done


async def timers_pending(loop, count):
    """100,000 timers stand, then all are cancelled."""
    for _ in range(max(1, count // 100_000)):
        handles = [loop.call_later(10 + number % 1000, nothing) for number in range(100_000)]
        await asyncio.sleep(0)
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0)


async def sleep_zero(loop, count):
    for _ in range(count):
        await asyncio.sleep(0)


async def gather_ten(loop, count):
    for _ in range(count // 10):
        await asyncio.gather(empty(), empty(), empty(), empty(), empty(), empty(), empty(), empty(), empty(), empty())


async def task_switch(loop, count):
    """100 tasks take turns."""

    async def take_turns(turns):
        for _ in range(turns):
            await asyncio.sleep(0)

    await asyncio.gather(*(take_turns(count // 100) for _ in range(100)))


async def wait_for(loop, count):
    for _ in range(count):
        await asyncio.wait_for(asyncio.sleep(0), 10)


async def future_round_trip(loop, count):
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def call_soon_threadsafe(loop, count):
    """A hundred a turn, as from a busy thread."""
    for _ in range(count // 100):
        for _ in range(100):
            loop.call_soon_threadsafe(nothing)
        await asyncio.sleep(0)


async def run_in_executor(loop, count):
    for _ in range(count):
        await loop.run_in_executor(None, nothing)


async def streams_ping_pong(loop, count):
    """64 bytes there and back over a socket pair, both ends streams of this process; counted one way."""

    async def serve(reader, writer):
        while data := await reader.read(64):
            writer.write(data)
            await writer.drain()

    ours, theirs = socket.socketpair()
    other_end = await asyncio.open_connection(sock=theirs)
    server = asyncio.create_task(serve(*other_end))
    reader, writer = await asyncio.open_connection(sock=ours)
    for _ in range(count // 2):
        writer.write(b"x" * 64)
        await reader.readexactly(64)
    server.cancel()
    writer.close()
    other_end[1].close()


async def subprocess_true(loop, count):
    for _ in range(count):
        process = await asyncio.create_subprocess_exec("/bin/true")
        if await process.wait():
            raise RuntimeError("/bin/true failed")


# Each case with the count of its first, small try.
CASES = {
    "call_soon": (call_soon_chain, 20_000),
    "call_soon_burst": (call_soon_burst, 100_000),
    "timer_cancel": (timer_cancel, 10_000),
    "timer_fire": (timer_fire, 5_000),
    "timers_pending": (timers_pending, 100_000),
    "sleep0": (sleep_zero, 20_000),
    "gather": (gather_ten, 10_000),
    "task_switch": (task_switch, 20_000),
    "wait_for": (wait_for, 5_000),
    "future": (future_round_trip, 10_000),
    "threadsafe": (call_soon_threadsafe, 10_000),
    "executor": (run_in_executor, 2_000),
    "streams": (streams_ping_pong, 4_000),
    "subprocess": (subprocess_true, 20),
}
