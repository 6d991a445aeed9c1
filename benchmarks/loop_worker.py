"""Measure one case on one loop in this process: loop_worker.py LOOP CASE SECONDS.

Prints the CPU microseconds of one operation.
"""

import asyncio
import functools
import gc
import resource
import sys
import time

from loop_cases import CASES
from loop_factory import new_event_loop

BATCHES = 5


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


async def measure(case, count: int, seconds: float) -> float:
    """The median of some batches that take `seconds` of CPU time together."""
    loop = asyncio.get_running_loop()
    while True:
        start = cpu_seconds()
        await case(loop, count)
        used = cpu_seconds() - start
        if used > seconds / BATCHES / 4:
            break
        count *= 2
    # Whole multiples of the first count, since some cases work in groups.
    count *= max(1, round(seconds / BATCHES / used))
    samples = []
    for _ in range(BATCHES):
        gc.collect()
        start = cpu_seconds()
        await case(loop, count)
        samples.append((cpu_seconds() - start) / count)
    return sorted(samples)[BATCHES // 2] * 1e6


def main() -> None:
    case, count = CASES[sys.argv[2]]
    with asyncio.Runner(loop_factory=functools.partial(new_event_loop, sys.argv[1])) as runner:
        print(runner.run(measure(case, count, float(sys.argv[3]))))


main()
