"""A new event loop by the name of what makes it. This file runs by itself in the measured processes."""

import asyncio
import importlib
import random

# Where in a page the heap goes on: as long as a path in the environment, for one, and worth 10 % where large pieces are
# copied. Drawn anew for each process, so that no loop has it good or bad for a whole run.
PADDING = bytes(64 * 1024 + 16 * random.randrange(256))


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    # Once a block of this size was freed, glibc takes smaller ones from its heap. In a process that never freed one,
    # each read into a fresh buffer of 256 KiB is a mapping made and undone (20 us, asyncio and rloop), which is
    # not so in programs that have imported something.
    block = bytearray(4 * 1024 * 1024)
    del block
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    module = "bolide" if name == "baseline" else name
    return importlib.import_module(module).new_event_loop()
