"""A pytest plugin that puts bolide's command, supervisor and reloader in the place of uvicorn's, besides its parts.

uvicorn's tests drive these objects by hand: they call their steps one after another and look at their processes. The
classes here have the methods that the tests call, and do by them what bolide's supervisor and watchers do; their
workers are real processes, which serve a port of their own.
"""

import contextlib
import functools
import importlib
import os
import threading
import time
import types

# Its hooks are this plugin's too.
from uvicorn_parts_plugin import *  # noqa: F403
from uvicorn_parts_plugin import module

import bolide.cli
import bolide.config
import bolide.reload
import bolide.server
import bolide.supervisor

DEADLINE = 20.0
# The watcher that uvicorn's Config has no option for: what a test means by the delay 0.
LEAST_DELAY = 0.01


class Command:
    """What click takes for the command; `run` is the one of the module, which tests replace."""

    name = "bolide"

    def __init__(self, main: types.ModuleType) -> None:
        self._module = main

    def main(self, args=(), prog_name=None, **extra):
        before = dict(os.environ)
        for name, value in before.items():
            if name.startswith("UVICORN_"):
                os.environ[name.replace("UVICORN_", "BOLIDE_")] = value
        try:
            self._main(list(args))
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _main(self, arguments):
        options = vars(bolide.cli.make_parser().parse_args(arguments))
        if options.pop("version"):
            bolide.cli.main(arguments)
            return
        options = bolide.cli.gather_options(options)
        options.setdefault("app_dir", "")
        if "headers" in options:
            options["headers"] = [list(header) for header in options["headers"]]
        self._module.run(options.pop("app"), **options)


def as_import_string(app):
    """What names `app` to another process: uvicorn's tests give their workers functions."""
    return app if isinstance(app, str) else f"{app.__module__}:{app.__qualname__}"


class Process:
    """What the tests take for a worker."""

    def __init__(self, worker):
        self.worker = worker
        self.pid = worker.pid

    def __eq__(self, other):
        return isinstance(other, Process) and self.worker is other.worker

    __hash__ = None

    def is_alive(self):
        return self.worker.process.poll() is None

    def is_ready(self, timeout=1):
        return self.worker.accepts

    def kill(self):
        self.worker.process.kill()

    def join(self):
        self.worker.process.wait(DEADLINE)


class Multiprocess(bolide.supervisor.Supervisor):
    """A supervisor that the tests drive step by step, or run in a thread, in which it cannot handle signals."""

    def __init__(self, config, sockets=None):
        config.app = as_import_string(config.app)
        config.port = 0
        super().__init__(config)
        self._ended = threading.Event()
        self._threaded = False

    def run(self):
        self._threaded = True
        try:
            return super().run()
        finally:
            self._ended.set()

    @contextlib.contextmanager
    def _handle_signals(self):
        yield

    @property
    def signal_queue(self):
        return self._signals

    @property
    def processes(self):
        return [Process(slot.worker) for slot in list(self.slots) if slot.worker is not None]

    @property
    def should_exit(self):
        return types.SimpleNamespace(is_set=lambda: self._stopping, set=lambda: setattr(self, "_stopping", True))

    def _turn_until(self, is_reached):
        end = time.monotonic() + DEADLINE
        while not is_reached():
            assert time.monotonic() < end, "the supervisor has not got there"
            self._turn()

    def _is_settled(self):
        ready = all(slot.worker is not None and slot.worker.accepts for slot in self.slots)
        return ready and not self._rolling and all(slot.next is None for slot in self.slots) and not self.retired

    def init_processes(self):
        self._bind_first()
        for _ in range(self.config.workers):
            self._add_slot()
        self._turn_until(self._is_settled)

    def keep_subprocess_alive(self):
        self._turn_until(self._is_settled)

    def handle_signals(self):
        self._turn()
        self._turn_until(self._is_settled)

    def terminate_all(self):
        self._stop()

    def join_all(self):
        if self._threaded:
            assert self._ended.wait(DEADLINE), "the supervisor has not ended"
        else:
            self._turn_until(lambda: not any(self._all_workers()))
            self._end()


class Reload:
    """What the tests take for a reloader: it watches, and restarts nothing."""

    watcher_class: type

    def __init__(self, config, target, sockets):
        self.should_exit = threading.Event()
        self._sockets = sockets
        self._matters = bolide.reload.FileFilter(config)
        self._delay = max(config.reload_delay, LEAST_DELAY)

    def startup(self):
        self._watcher = self.watcher_class(self._matters, self._delay, self.should_exit)

    def restart(self):
        self._watcher.changes()

    def shutdown(self):
        self.should_exit.set()
        for sock in self._sockets:
            sock.close()

    def should_restart(self):
        return sorted(self._watcher.changes()) or None

    __next__ = should_restart


class StatReload(Reload):
    watcher_class = bolide.reload.Polling


class WatchFilesReload(Reload):
    watcher_class = bolide.reload.WatchFiles


def replace_command() -> None:
    """uvicorn.main and the package's own names."""
    import uvicorn

    theirs = importlib.import_module("uvicorn.main")
    main = types.ModuleType("uvicorn.main")
    main.run = bolide.server.serve
    main.main = Command(main)
    module("uvicorn.main", main, __getattr__=functools.partial(getattr, theirs))
    uvicorn.run = bolide.server.serve
    uvicorn.__version__ = bolide.__version__


def replace_supervisors() -> None:
    """uvicorn.supervisors."""
    import uvicorn.supervisors

    # bolide.server imports it when it needs it, so that tests may replace its run().
    bolide.supervisor.Supervisor = Multiprocess
    uvicorn.supervisors.Multiprocess = Multiprocess
    uvicorn.supervisors.ChangeReload = bolide.reload.Reloader
    module("uvicorn.supervisors.multiprocess", Multiprocess=Multiprocess, Process=Process)
    module("uvicorn.supervisors.basereload", BaseReload=Reload, _display_path=bolide.reload._shown)
    module("uvicorn.supervisors.statreload", StatReload=StatReload)
    file_filter = bolide.reload.FileFilter
    module("uvicorn.supervisors.watchfilesreload", WatchFilesReload=WatchFilesReload, FileFilter=file_filter)


replace_command()
replace_supervisors()
bolide.supervisor._TICK = 0.05
