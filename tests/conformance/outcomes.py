"""Writes down how each test of a suite went, for pytest_suites.run()."""

import json
import os
from collections.abc import Callable

import pytest


class Outcomes:
    """A pytest plugin. `is_apart` is asked after a test that passed: whether no server of bolide's had a part in it."""

    def __init__(self, is_apart: Callable[[], bool] = lambda: False) -> None:
        self._is_apart = is_apart
        self._outcomes: dict[str, str] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        result = yield
        report = result.get_result()
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            apart = report.outcome == "passed" and self._is_apart()
            self._outcomes[item.nodeid] = "apart" if apart else report.outcome

    def pytest_collectreport(self, report):
        if report.failed:
            self._outcomes[report.nodeid] = "not imported"

    def pytest_sessionfinish(self, session):
        with open(os.environ["BOLIDE_SUITE_REPORT"], "w", encoding="utf-8") as file:
            json.dump(self._outcomes, file, indent=1)
