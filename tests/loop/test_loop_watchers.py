"""add_reader(), add_writer() and their removal, for whatever has or had a descriptor."""

import asyncio
import contextvars
import os
import socket

import pytest
from support.loops import LOOP, only_bolide


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


def run_for(loop, seconds=0.01):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("turns_before", [0, 1, 5])
@pytest.mark.parametrize("event", ["reader", "writer"])
def test_what_a_new_watcher_finds_comes_in_the_next_turn(loop, pair, event, turns_before):
    """However busy the loop is: before what the callbacks of that turn schedule."""
    left, right = pair
    right.send(b"x")
    seen = []

    def begin(left_over):
        if left_over > 0:
            loop.call_soon(begin, left_over - 1)
            return
        getattr(loop, f"add_{event}")(left, end)
        loop.call_soon(turn, 1)

    def turn(number):
        seen.append(number)
        if number < 5:
            loop.call_soon(turn, number + 1)
        else:
            loop.stop()

    def end():
        seen.append(event)
        getattr(loop, f"remove_{event}")(left)

    loop.call_soon(begin, turns_before)
    loop.run_forever()
    assert seen == [1, event, 2, 3, 4, 5]


def test_a_reader_is_called_while_there_is_something_to_read(loop, pair):
    left, right = pair
    seen = []

    def read(*arguments):
        seen.append((left.recv(1), arguments))
        if len(seen) == 3:
            loop.stop()

    assert loop.add_reader(left, read, 1, "two") is None
    right.send(b"abc")
    loop.run_forever()
    assert seen == [(letter, (1, "two")) for letter in (b"a", b"b", b"c")]
    assert loop.remove_reader(left) is True
    right.send(b"d")
    run_for(loop)
    assert len(seen) == 3


def test_one_turn_handles_what_is_there(loop, pair):
    """`call_soon(stop); run_forever()`, as many tests out there run a loop for a moment."""
    left, right = pair
    seen = []
    loop.add_reader(left, lambda: seen.append(left.recv(1)))
    right.send(b"x")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.remove_reader(left)
    assert seen == [b"x"]


def test_a_writer_is_called_while_there_is_room(loop, pair):
    left, _ = pair
    seen = []

    def write():
        seen.append(1)
        if len(seen) == 3:
            loop.remove_writer(left)
            loop.stop()

    loop.add_writer(left, write)
    loop.run_forever()
    run_for(loop)
    assert len(seen) == 3


def test_both_sides_of_one_descriptor(loop, pair):
    left, right = pair
    seen = set()

    def note(what):
        seen.add(what)
        if len(seen) == 2:
            loop.stop()

    right.send(b"x")
    loop.add_reader(left, note, "reader")
    loop.add_writer(left.fileno(), note, "writer")
    loop.run_forever()
    assert loop.remove_reader(left.fileno()) and loop.remove_writer(left)
    assert not loop.remove_reader(left) and not loop.remove_writer(left)


def test_the_second_reader_replaces_the_first(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, seen.append, "first")
    loop.add_reader(left, lambda: (seen.append("second"), loop.stop()))
    right.send(b"x")
    loop.run_forever()
    assert seen == ["second"]
    loop.remove_reader(left)


def test_the_end_of_the_peer_wakes_reader_and_writer(loop, pair):
    left, right = pair
    seen = []
    loop.add_reader(left, lambda: (seen.append(left.recv(10)), loop.remove_reader(left), loop.stop()))
    right.close()
    loop.run_forever()
    assert seen == [b""]


def test_contexts_are_kept(loop, pair):
    left, right = pair
    var = contextvars.ContextVar("var")
    seen = []
    var.set("then")
    loop.add_reader(left, lambda: (seen.append(var.get()), loop.stop()))
    var.set("now")
    right.send(b"x")
    loop.run_forever()
    loop.remove_reader(left)
    assert seen == ["then"]


def test_an_exception_is_reported_and_the_reader_stays(loop, pair, reports):
    left, right = pair
    calls = []

    def fail():
        calls.append(left.recv(1))
        if len(calls) == 2:
            loop.stop()
        raise ValueError

    loop.add_reader(left, fail)
    right.send(b"ab")
    loop.run_forever()
    loop.remove_reader(left)
    assert len(calls) == 2
    assert [type(report["exception"]) for report in reports] == [ValueError, ValueError]
    reports.clear()


def test_a_reader_removed_within_the_same_turn_is_not_called(loop):
    pairs = [socket.socketpair() for _ in range(10)]
    called = []

    def only_one(number):
        called.append(number)
        for left, _ in pairs:
            loop.remove_reader(left)
        loop.stop()

    for number, (left, right) in enumerate(pairs):
        right.send(b"x")
        loop.add_reader(left, only_one, number)
    loop.run_forever()
    run_for(loop)
    assert len(called) == 1
    for left, right in pairs:
        left.close()
        right.close()


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_an_object_closed_before_it_is_removed(loop, pair, side):
    """As libraries do: anyio closes the socket and then removes its reader."""
    left, _ = pair
    if LOOP == "uvloop":
        pytest.skip("uvloop refuses it")
    getattr(loop, f"add_{side}")(left, print)
    left.close()
    assert getattr(loop, f"remove_{side}")(left) is True
    with pytest.raises(ValueError):
        getattr(loop, f"remove_{side}")(left)
    run_for(loop)


@only_bolide
def test_a_descriptor_that_is_closed_and_used_anew(loop):
    """The same number stands for another file then, and works."""
    seen = []
    for number in range(5):
        left, right = socket.socketpair()
        loop.add_reader(
            left.fileno(), lambda left=left, number=number: (seen.append((number, left.recv(1))), loop.stop())
        )
        right.send(b"x")
        loop.run_forever()
        left.close()
        right.close()
    assert seen == [(number, b"x") for number in range(5)]


def test_a_closed_descriptor_does_no_harm(loop):
    left, right = socket.socketpair()
    descriptor = left.fileno()
    loop.add_reader(descriptor, print)
    left.close()
    run_for(loop)
    assert loop.remove_reader(descriptor)
    right.close()


@pytest.mark.parametrize("wrong", [-1, "text", None, 5.5, object()])
@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_what_is_no_descriptor(loop, method, wrong):
    with pytest.raises((ValueError, TypeError)):
        getattr(loop, method)(wrong, print)


def test_a_descriptor_that_is_not_open(loop):
    with pytest.raises(OSError):
        loop.add_reader(100_000, print)


def test_a_regular_file(loop, tmp_path):
    """epoll does not watch it, and says so, as asyncio does."""
    with open(tmp_path / "file", "w") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)
    run_for(loop)


def test_without_a_callback(loop, pair):
    with pytest.raises(TypeError):
        loop.add_reader(pair[0])


def test_pipes(loop):
    reading, writing = os.pipe()
    seen = []
    loop.add_reader(reading, lambda: (seen.append(os.read(reading, 10)), loop.stop()))
    os.write(writing, b"through")
    loop.run_forever()
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)
    assert seen == [b"through"]


def test_hundreds_of_descriptors_at_once(loop):
    pairs = [socket.socketpair() for _ in range(200)]
    seen = set()

    def note(number):
        seen.add(number)
        loop.remove_reader(pairs[number][0])
        if len(seen) == len(pairs):
            loop.stop()

    for number, (left, right) in enumerate(pairs):
        loop.add_reader(left, note, number)
        right.send(b"x")
    loop.run_forever()
    for left, right in pairs:
        left.close()
        right.close()


def test_readers_wake_a_loop_that_waits(loop, pair):
    left, right = pair

    def read(arrived):
        left.recv(1)
        loop.remove_reader(left)
        arrived.set_result(None)

    async def main():
        for _ in range(500):
            arrived = loop.create_future()
            loop.add_reader(left, read, arrived)
            await loop.run_in_executor(None, right.send, b"x")
            await asyncio.wait_for(arrived, 10)

    loop.run_until_complete(main())


def test_closing_the_loop_forgets_its_readers(pair):
    from support.loops import new_event_loop

    loop = new_event_loop()
    loop.add_reader(pair[0], print)
    loop.add_writer(pair[1], print)
    loop.close()
    assert pair[0].fileno() >= 0
    with pytest.raises(RuntimeError):
        loop.add_reader(pair[0], print)
