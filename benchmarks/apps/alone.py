"""Drive an ASGI application by hand, without any server: alone.py MODULE:ATTRIBUTE PATH?QUERY SECONDS.

Prints the CPU microseconds of one request: what the application and its framework cost, whatever serves them.
"""

import importlib
import sys
import time

import uvloop

HEADERS = [(b"host", b"127.0.0.1:8000")]
BATCH = 200


async def drive(app, target: str, seconds: float) -> float:
    path, _, query = target.partition("?")
    template = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app({**template, "headers": list(HEADERS), "state": {}}, receive, send)
    assert sent[0]["status"] == 200, sent
    samples = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        start = time.process_time()
        for _ in range(BATCH):
            sent.clear()
            await app({**template, "headers": list(HEADERS), "state": {}}, receive, send)
        samples.append((time.process_time() - start) / BATCH)
    samples.sort()
    return samples[len(samples) // 2] * 1e6


def main() -> None:
    module, _, attribute = sys.argv[1].partition(":")
    app = getattr(importlib.import_module(module), attribute)
    print(uvloop.run(drive(app, sys.argv[2], float(sys.argv[3]))))


main()
