"""bolide beside its peers: `python -m benchmarks.server` and `python -m benchmarks.loops`."""
