"""Start a server that has no command of its own: serve_with.py NAME MODULE:ATTRIBUTE PORT."""

import importlib
import sys


def main() -> None:
    name, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    module, _, attribute = target.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    if name == "fastpysgi":
        import fastpysgi

        fastpysgi.run(app, host="127.0.0.1", port=port, workers=1, loglevel=fastpysgi.LL_ERROR)
    elif name == "freastal":
        import freastal

        freastal.serve_asgi(app, host="127.0.0.1", port=port)
    else:
        sys.exit(f"unknown server {name}")


main()
