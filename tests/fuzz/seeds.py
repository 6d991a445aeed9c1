"""Write the start of the fuzz target's corpus from that of malformed requests: python tests/fuzz/seeds.py FOLDER."""

import sys
from hashlib import sha1
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "http"))
from corpus import CASES

LONGEST = 1000


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(CASES):
        if len(case.raw) <= LONGEST:
            data = (number * 2654435761 % 2**32).to_bytes(4, "little") + case.raw
            (folder / sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
