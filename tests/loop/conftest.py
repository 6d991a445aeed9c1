"""Fixtures of the tests of the loop."""

from support.loops import loop, reports

__all__ = ["loop", "reports"]
