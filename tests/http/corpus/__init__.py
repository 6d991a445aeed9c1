"""A corpus of requests that a server has to refuse, or to read in one way only: see case.py for its form.

`python -m corpus` (with tests/http on the path; `make corpus`) holds bolide, uvicorn and granian against it side by
side; test_http_corpus.py holds bolide against it.
"""

from . import chunks, connections, fields, framing, hosts, limits, lines
from .case import POISON, Case

CASES: tuple[Case, ...] = tuple(
    case for module in (lines, fields, hosts, framing, chunks, connections, limits) for case in module.CASES
)

__all__ = ["CASES", "POISON", "Case"]
