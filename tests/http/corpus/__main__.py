"""Hold servers against the corpus, side by side: python -m corpus [-v] [SERVER ...]

SERVER is bolide, uvicorn or granian; all of them by default. Prints a table, and under -v every case in which a server
does what is not allowed. The status is 1 when bolide has a fault.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import CASES
from .judge import Verdict, judge

HERE = Path(__file__).resolve().parent
COMMANDS = {
    "bolide": ["-m", "bolide", "--log-level", "critical", "--port"],
    "uvicorn": ["-m", "uvicorn", "--log-level", "critical", "--no-access-log", "--port"],
    "granian": ["-m", "granian", "--interface", "asgi", "--log-level", "critical", "--workers", "1", "--port"],
}
PATIENCE = {"bolide": 10.0}
# A peer that keeps a connection which it should close is not waited for as long.
PEER_PATIENCE = 0.4


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(server: str) -> tuple[subprocess.Popen, tuple[str, int]]:
    """Start a server and wait until it accepts."""
    address = ("127.0.0.1", free_port())
    command = [sys.executable, *COMMANDS[server], str(address[1]), "corpus.app:app"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=log)
        for _ in range(1000):
            try:
                socket.create_connection(address, 1).close()
                return process, address
            except OSError:
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{server} did not start:\n{log.read().decode()}") from None
                time.sleep(0.02)
    process.kill()
    raise SystemExit(f"{server} did not start")


def run(server: str) -> list[Verdict]:
    """Judge every case."""
    process, address = start(server)
    try:
        return [judge(address, case, patience=PATIENCE.get(server, PEER_PATIENCE), patient=True) for case in CASES]
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="corpus")
    parser.add_argument("-v", "--verbose", action="store_true", help="name every case with a fault")
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="which ones; all by default")
    options = parser.parse_args()
    results = {server: run(server) for server in options.servers or COMMANDS}
    print(f"{len(CASES)} cases\n\n{'':<10}{'as allowed':>12}{'forwards':>12}{'other faults':>14}")
    for server, verdicts in results.items():
        faulty = [verdict for verdict in verdicts if verdict.faults]
        forwards = sum(verdict.forwarded for verdict in faulty)
        print(f"{server:<10}{len(verdicts) - len(faulty):>12}{forwards:>12}{len(faulty) - forwards:>14}")
    if options.verbose:
        for server, verdicts in results.items():
            print(f"\n{server}")
            for verdict in verdicts:
                if verdict.faults:
                    print(f"  {verdict.case.name} [RFC {verdict.case.rfc}]: {'; '.join(verdict.faults)}")
    return any(verdict.faults for verdict in results.get("bolide", []))


if __name__ == "__main__":
    sys.exit(main())
