"""The corpus of requests to refuse, or to read in one way only, against bolide: whole, and in the smallest pieces."""

from pathlib import Path

import pytest
from corpus import CASES
from corpus.judge import judge
from support import KIND, ServerProcess

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="`make corpus` compares other servers")


@pytest.fixture(scope="module")
def judged():
    """A server that serves the corpus's application."""
    with ServerProcess("corpus.app:app", "--no-access-log", app_dir=Path(__file__).parent) as server:
        yield server
        assert server.process.poll() is None, server.log.text


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(judged, case):
    assert judge(judged.address, case).faults == []


@pytest.mark.parametrize("part", range(10))
def test_in_pieces(judged, part):
    """The same, a byte at a time, or in a hundred pieces if it is long: the answers are the same."""
    for case in CASES[part::10]:
        size = len(case.raw)
        assert judge(judged.address, case, pieces=size if size < 500 else 100).faults == [], case.name
