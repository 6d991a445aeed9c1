"""No operation of a loop leaves a reference behind. Only a debug build of CPython counts them all."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.loops import only_bolide

SLICES = 6


@only_bolide
@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="takes a debug build of CPython, e.g. python3.14-dbg")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(SLICES))
def test_references_do_not_add_up(part):
    command = [sys.executable, str(Path(__file__).with_name("references.py")), str(part), str(SLICES)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=840, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
