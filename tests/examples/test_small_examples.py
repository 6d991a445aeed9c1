"""The examples of one file each."""

import hashlib
import re
import signal
import socket
import subprocess
import sys

import pytest
from support import KIND, REPOSITORY, ServerProcess
from support.server import Output

EXAMPLES = REPOSITORY / "examples"
needs_bolide = pytest.mark.skipif(KIND != "bolide", reason="uses the package's API")


def check_hashes(server: ServerProcess) -> None:
    """Upload something, twice on one connection; ask for help."""
    with server.connect() as connection:
        for size in (0, 1_000_000):
            answer = connection.request("PUT", "/some/file", body=b"x" * size)
            assert answer.text == f"{hashlib.sha256(b'x' * size).hexdigest()}  /some/file\n"
        assert connection.get("/").status == 200
        assert connection.request("DELETE", "/").status == 405


def test_raw_asgi_by_the_command():
    with ServerProcess("raw_asgi:app", app_dir=EXAMPLES) as server:
        check_hashes(server)
        server.stop()
        assert "Traceback" not in server.log.text


@needs_bolide
def test_raw_asgi_by_the_api():
    with ServerProcess(None, "0", command=[sys.executable, str(EXAMPLES / "raw_asgi.py")]) as server:
        check_hashes(server)
        assert server.stop() == 0


@needs_bolide
def test_echo():
    """Server and client, as the user would start them."""
    command = [sys.executable, "-u", str(EXAMPLES / "echo_server.py"), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = Output(process.stdout), Output(process.stderr)
        found = output.wait_for(r"echo server on 127\.0\.0\.1:([0-9]+), loop (\S+)")
        port = found[1]
        assert found[2].startswith("bolide")
        client = [sys.executable, str(EXAMPLES / "echo_client.py"), port, "200"]
        told = subprocess.run(client, capture_output=True, text=True, timeout=60, check=True).stdout
        assert re.fullmatch(r"200 round trips, [0-9.]+ us each\n", told)
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as plain:
            plain.sendall(b"x" * 100_000)
            plain.shutdown(socket.SHUT_WR)
            received = b""
            while data := plain.recv(65536):
                received += data
            assert received == b"x" * 100_000
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "Traceback" not in errors.join()
    finally:
        process.kill()
        process.wait()
