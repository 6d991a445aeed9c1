"""The corpus of the fuzz target server.c: python tests/fuzz/seeds.py [--keep] FOLDER

Unpacks server.corpus, an input in hexadecimal a line, and what the corpus of malformed requests has, into FOLDER. With
--keep, writes server.corpus anew from what is in FOLDER: merge it first (libFuzzer's -merge=1 -use_counters=0).
"""

import sys
from hashlib import sha1
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "http"))
from corpus import CASES

KEPT = Path(__file__).with_name("server.corpus")
LONGEST = 1000


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[-1])
    folder.mkdir(parents=True, exist_ok=True)
    if "--keep" in sys.argv:
        lines = sorted(path.read_bytes().hex() + "\n" for path in folder.iterdir())
        KEPT.write_text("".join(lines), encoding="ascii")
        return
    inputs = [bytes.fromhex(line) for line in KEPT.read_text(encoding="ascii").splitlines()]
    for number, case in enumerate(CASES):
        if len(case.raw) <= LONGEST:
            inputs.append((number * 2654435761 % 2**32).to_bytes(4, "little") + case.raw)
    for data in inputs:
        (folder / sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
