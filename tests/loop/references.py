"""Repeats the operations of a loop and counts what is left of each, on a debug build of CPython.

`references.py <slice> <slices>`: every so many of operations.py, beginning with a given one. Prints what goes on
growing; the status is 1 if something does. What the interpreter keeps in caches and learns of the code makes the
first rounds grow, less and less: a leak shows in each of them. Run by test_loop_references.py.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import operations

import bolide

REPETITIONS = 25
ROUNDS = 40
ENOUGH = REPETITIONS // 2


def count():
    """References, blocks of memory, descriptors."""
    for _ in range(3):
        gc.collect()
    return sys.gettotalrefcount(), sys.getallocatedblocks(), len(os.listdir("/proc/self/fd"))


def growth(repeat):
    """What a round leaves behind of each: of the first that leaves next to nothing, or of the last."""
    repeat()
    before = count()
    for _ in range(ROUNDS):
        repeat()
        after = count()
        grown = [new - old for old, new in zip(before, after, strict=True)]
        if grown[0] < ENOUGH and grown[1] < ENOUGH and grown[2] <= 0:
            break
        before = after
    return grown


def growth_on_a_loop(operation):
    """Of an operation, on a loop that stays open."""
    loop = bolide.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    def repeat():
        for _ in range(REPETITIONS):
            loop.run_until_complete(asyncio.wait_for(operation(), 60))

    try:
        return growth(repeat)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def growth_of_loops(operation):
    """Of an operation that makes its own loop."""

    def repeat():
        for _ in range(REPETITIONS):
            operation()

    return growth(repeat)


def main():
    """Measure a slice."""
    faulthandler.enable()
    logging.disable()
    warnings.simplefilter("ignore")
    measured = [(name, growth_on_a_loop, function) for name, function in operations.OPERATIONS.items()]
    measured += [(name, growth_of_loops, function) for name, function in operations.LOOPS.items()]
    leaks = 0
    for name, measure, function in measured[int(sys.argv[1]) :: int(sys.argv[2])]:
        references, blocks, descriptors = measure(function)
        if references >= ENOUGH or blocks >= ENOUGH or descriptors > 0:
            print(f"{name}: {references} references, {blocks} blocks, {descriptors} descriptors a round")
            leaks += 1
    sys.exit(leaks > 0)


if __name__ == "__main__":
    main()
