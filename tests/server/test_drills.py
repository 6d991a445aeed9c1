"""Short forms of the drills."""

import pytest
from drills import kills, resizes, rolling_restarts, stops

import bolide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
each_way = pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])


@each_way
def test_rolling_restarts_lose_nothing(fresh):
    figures = bolide.run(rolling_restarts(2, fresh))
    assert figures.lost == []
    assert figures.refused == 0
    # One may be replaced before it has answered anything.
    assert len(figures.workers) > 2


@each_way
def test_stops_answer_all_connections_that_were_made(fresh):
    figures = bolide.run(stops(1, fresh))
    assert figures.lost == []


def test_workers_that_come_and_go_lose_nothing():
    figures = bolide.run(resizes(2, fresh=True))
    assert figures.lost == []
    assert figures.refused == 0


def test_killed_workers_are_replaced_and_the_others_serve():
    figures = bolide.run(kills(2))
    assert len(figures.workers) > 2
