"""Send a case to a server and judge what it does: by its answers, and by what reached the application."""

import contextlib
import json
import re
import socket
from dataclasses import dataclass, field

from .case import POISON, Case

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
HEAD = re.compile(rb"HTTP/1\.[01] (\d\d\d)[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")

# How long a server under comparison may think before it is taken for done, in seconds.
QUIET = 0.3


@dataclass
class Verdict:
    """What happened to a case; `faults` says what of that is not allowed."""

    case: Case
    answers: str = ""
    closed: bool = False
    seen: list[dict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def forwarded(self) -> bool:
        """Whether the application got a request, or the end of one, that it must not get."""
        return any(fault.startswith("forwarded") for fault in self.faults)


def split_answers(raw: bytes, methods: list[str]) -> tuple[str, bytes]:
    """The statuses in `raw`, with 299 for a 2xx that is not of the application, and what follows the last of them."""
    words = []
    while found := HEAD.match(raw):
        status, lines = int(found[1]), found[2].lower()
        raw = raw[found.end() :]
        if status < 200:
            continue
        mine = b"x-app:" in lines
        words.append(str(status) if mine or not 200 <= status < 300 else "299")
        length = re.search(rb"^content-length: *(\d+)", lines, re.MULTILINE)
        bodyless = mine and methods and methods.pop(0) == "HEAD"
        if bodyless:
            continue
        if length is not None:
            raw = raw[int(length[1]) :]
        elif b"chunked" in lines:
            raw = raw.partition(b"0\r\n\r\n")[2]
        else:
            raw = b""
    return " ".join(words) or "-", raw


def read_until(sock: socket.socket, answers: int) -> bytes:
    """What comes back until there are so many answers, or nothing comes any more for a while, or the end."""
    back = b""
    sock.settimeout(QUIET)
    with contextlib.suppress(OSError):
        while split_answers(back, ["GET"] * answers)[0].count(" ") + 1 < answers or not back:
            data = sock.recv(65536)
            if not data:
                break
            back += data
    return back


def exchange(
    address: tuple[str, int], case: Case, patience: float, pieces: int, patient: bool
) -> tuple[bytes, bool, int]:
    """Send the case, in so many pieces: what comes back, whether the server closed by itself, and our port.

    patient: where the client has to end the connection, it does so after the answers, not at once.
    """
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(10)
        port = sock.getsockname()[1]
        back, closed = b"", True
        step = max(1, -(-len(case.raw) // max(1, pieces)))
        with contextlib.suppress(OSError):
            for start in range(0, len(case.raw), step):
                sock.sendall(case.raw[start : start + step])
            if patient and not case.must_close and not case.eof:
                back = read_until(sock, max(answer.count(" ") + 1 for answer in case.answers))
            if not case.must_close:
                sock.shutdown(socket.SHUT_WR)
        sock.settimeout(patience)
        try:
            while data := sock.recv(65536):
                back += data
        except TimeoutError:
            closed = False
        except ConnectionError:
            pass
        return back, closed, port


def account(address: tuple[str, int], port: int) -> list[dict]:
    """What the application has seen from that port."""
    with socket.create_connection(address) as sock:
        sock.settimeout(10)
        sock.sendall(b"GET /account?%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % port)
        raw = b""
        while data := sock.recv(65536):
            raw += data
        return json.loads(raw.partition(b"\r\n\r\n")[2])


def check_request(seen: dict) -> list[str]:
    """What no request that reaches an application may have, whatever was sent."""
    faults = []
    names = [name for name, _ in seen["headers"]]
    for name, value in seen["headers"]:
        if TOKEN.fullmatch(name) is None:
            faults.append(f"forwarded the name {name!r}")
        if value != value.strip(" \t") or any((c < " " and c != "\t") or c == "\x7f" for c in value):
            faults.append(f"forwarded the value {value[:40]!r} of {name}")
    if names.count("host") > 1 or (seen["version"] != "1.0" and "host" not in names):
        faults.append(f"forwarded {names.count('host')} Host fields")
    if names.count("content-length") + names.count("transfer-encoding") > 1:
        faults.append("forwarded two framings")
    if any(c <= " " or c == "\x7f" for c in seen["path"] + seen["query"]):
        faults.append(f"forwarded the target {seen['path'][:40]!r}")
    return faults


def check_seen(case: Case, verdict: Verdict) -> None:
    """Add the faults in what reached the application."""
    complete = [seen for seen in verdict.seen if seen["complete"]]
    most = max(answer.split().count("200") for answer in case.answers)
    if len(complete) > most:
        verdict.faults.append(f"forwarded {len(complete)} requests, not {most}")
    if len(verdict.seen) > most + case.streams:
        verdict.faults.append(f"forwarded the start of {len(verdict.seen)} requests, not {most + case.streams}")
    for number, seen in enumerate(verdict.seen):
        verdict.faults += check_request(seen)
        expected = case.sees[number] if case.sees and number < len(case.sees) else None
        got = (seen["method"], seen["path"], seen["body"].encode("latin-1"))
        if expected is not None and seen["complete"] and got != expected:
            verdict.faults.append(f"forwarded {got!r:.80}, not {expected!r:.80}")
        hosts = [value for name, value in seen["headers"] if name == "host"]
        if case.host is not None and hosts != [case.host]:
            verdict.faults.append(f"forwarded Host {hosts}, not {case.host}")
        text = json.dumps([seen["path"], seen["query"], seen["headers"]])
        if POISON in text and (expected is None or POISON not in expected[1]):
            verdict.faults.append("forwarded what was smuggled")


def judge(
    address: tuple[str, int], case: Case, *, patience: float = 10.0, pieces: int = 1, patient: bool = False
) -> Verdict:
    """Send the case to the server at `address`; wait at most `patience` seconds for each of its answers."""
    verdict = Verdict(case)
    raw, verdict.closed, port = exchange(address, case, patience, pieces, patient)
    verdict.seen = account(address, port)
    verdict.answers, rest = split_answers(raw, [seen["method"] for seen in verdict.seen if seen["complete"]])
    if verdict.answers not in case.answers:
        verdict.faults.append(f"answered {verdict.answers}, not {' or '.join(case.answers)}")
    if not verdict.closed:
        verdict.faults.append("did not close")
    if rest:
        verdict.faults.append(f"answered with bytes that are none: {rest[:40]!r}")
    check_seen(case, verdict)
    return verdict
