"""Other servers on the loop: the real packages."""

import signal
import socket
import textwrap

import httpx
import pytest
from support.loops import LOOP
from support.process import DEADLINE, launching

pytestmark = pytest.mark.skipif(LOOP != "bolide", reason="how to give them the loop is bolide's business")

APP = """
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = type(asyncio.get_running_loop()).__module__.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def launch(tmp_path):
    """launch(module, *arguments): start a server in a folder that holds hosted.py."""
    (tmp_path / "hosted.py").write_text(textwrap.dedent(APP))
    with launching(tmp_path) as start:
        yield start


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


HYPERCORN = """
    import asyncio
    import sys

    import bolide
    import hypercorn.config
    from hypercorn.asyncio import serve
    from hosted import app

    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    with asyncio.Runner(loop_factory=bolide.new_event_loop) as runner:
        runner.run(serve(app, config))
"""
GRANIAN = """
    import asyncio
    import sys

    import bolide
    import granian
    from granian._loops import loops

    @loops.register("auto")
    def build_bolide_loop():
        loop = bolide.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop

    if __name__ == "__main__":
        granian.Granian("hosted:app", port=int(sys.argv[1]), interface="asgi").serve()
"""
DAPHNE = """
    import bolide

    bolide.install()

    from daphne.cli import CommandLineInterface

    CommandLineInterface.entrypoint()
"""


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian", "daphne"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_server_on_the_loop(launch, tmp_path, server):
    pytest.importorskip(server)
    port = free_port()
    if server == "uvicorn":
        process = launch("uvicorn", "--loop", "bolide:new_event_loop", "--port", str(port), "hosted:app")
    else:
        script = {"hypercorn": HYPERCORN, "granian": GRANIAN, "daphne": DAPHNE}[server]
        (tmp_path / "run_it.py").write_text(textwrap.dedent(script))
        arguments = ["-p", str(port), "hosted:app"] if server == "daphne" else [str(port)]
        process = launch("run_it", *arguments)
    ready = {
        "uvicorn": "Uvicorn running on",
        "hypercorn": "Running on",
        "granian": "Started worker",
        "daphne": "Listening on TCP address",
    }
    process.wait_for(ready[server])
    answer = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=DEADLINE)
    assert answer.text == "bolide._loop"
    process.stop(signal.SIGINT)
    assert "Traceback" not in process.text
