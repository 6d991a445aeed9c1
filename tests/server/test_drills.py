"""Short forms of the drills."""

import pytest
from drills import kills, rolling_restarts, stops

import bolide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_rolling_restarts_lose_nothing():
    figures = bolide.run(rolling_restarts(3))
    assert figures.lost == []
    assert figures.refused == 0
    # One may be replaced before it has answered anything.
    assert len(figures.workers) > 2


def test_stops_answer_what_was_accepted():
    figures = bolide.run(stops(3))
    assert figures.lost == []


def test_killed_workers_are_replaced_and_the_others_serve():
    figures = bolide.run(kills(3))
    assert len(figures.workers) > 2
