"""Fixtures of the tests of the transports."""

from support.loops import loop, reports

__all__ = ["loop", "reports"]
