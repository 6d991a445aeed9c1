"""Measure one case on one loop in this process, a while at a time: loop_worker.py LOOP CASE SECONDS.

It says "ready" once it knows how much to do in `SECONDS` of CPU time. Then it does that for each line that it reads,
and answers with the CPU microseconds of one operation.
"""

import asyncio
import functools
import gc
import resource
import sys
import time

from loop_cases import CASES
from loop_factory import new_event_loop


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


async def take_turns(case, count: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        start = cpu_seconds()
        await case(loop, count)
        used = cpu_seconds() - start
        if used > seconds / 4:
            break
        count *= 2
    # Whole multiples of the first count, since some cases work in groups.
    count *= max(1, round(seconds / used))
    print("ready", flush=True)
    while sys.stdin.readline():
        gc.collect()
        start = cpu_seconds()
        await case(loop, count)
        print((cpu_seconds() - start) / count * 1e6, flush=True)


def main() -> None:
    case, count = CASES[sys.argv[2]]
    with asyncio.Runner(loop_factory=functools.partial(new_event_loop, sys.argv[1])) as runner:
        runner.run(take_turns(case, count, float(sys.argv[3])))


main()
