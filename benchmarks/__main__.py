"""`python -m benchmarks` says what there is."""

import sys

sys.exit("run python -m benchmarks.server or python -m benchmarks.loops; both take --help")
