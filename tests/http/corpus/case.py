"""What a case of the corpus is, and how the tables of cases are written."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Bytes that a client sends on one connection, and what a server may do about them.

    name: unique in the corpus. rfc: the section that decides, "9112 6.3" for RFC 9112, section 6.3.
    raw: what is sent.
    answers: the sequences of statuses that are allowed, each as words: "200 400" is an answer by the application, then
        a refusal by the server. A 2xx counts as the application's, anything else as the server's own. "-" is no answer
        at all. After a sequence that ends in a refusal, or in "-", the server has to close by itself.
    eof: the client sends its FIN after `raw`. Then nothing is said about who closes.
    streams: the application may see the head and the start of the last request, but never the end of its body.
    host: the Host field that the application sees, if it gets the request.
    sees: what the answered requests were, one (method, raw path, body) each; None where that is of no interest.
    """

    name: str
    rfc: str
    raw: bytes
    answers: tuple[str, ...]
    eof: bool = False
    streams: bool = False
    host: str | None = None
    sees: tuple[tuple[str, str, bytes], ...] | None = None

    @property
    def must_close(self) -> bool:
        """Whether every allowed answer ends in a refusal, so that the server closes without being asked to."""
        return not self.eof and all(not answer.endswith("200") for answer in self.answers)


# No case allows that the application sees this word in a target, a header or the name of one, unless `sees` has it.
POISON = "smuggled"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

Add = Callable[..., None]


def table(cases: list[Case], rfc: str) -> Add:
    """A function that appends a case under this section: add(name, raw, *answers, **fields of Case)."""

    def add(name: str, raw: bytes, *answers: str, **fields) -> None:
        cases.append(Case(name, fields.pop("rfc", rfc), raw, answers, **fields))

    return add
