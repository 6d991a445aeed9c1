"""How a loop hears of the end of its children, before CPython 3.14, which has no child watchers any more."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from asyncio import events, unix_events
from typing import Any

if sys.version_info < (3, 14):

    def find_watcher(loop: Any) -> Any:
        """The child watcher with a pidfd that suits the loop; None when the user has set something else.

        CPython 3.11 would have a thread for each child.
        """
        policy: Any = events.get_event_loop_policy()
        theirs: Any = asyncio.DefaultEventLoopPolicy
        if type(policy).get_child_watcher is not theirs.get_child_watcher:
            return None
        watcher = getattr(policy, "_watcher", None)
        if sys.version_info >= (3, 12):
            return watcher if type(watcher) is unix_events.PidfdChildWatcher else None
        is_default = watcher is None or type(watcher) is asyncio.ThreadedChildWatcher
        return _own_watcher(loop) if is_default and _has_pidfd() else None

    @functools.cache
    def _has_pidfd() -> bool:
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):  # an old kernel, or one that is forbidden to
            return False
        return True

    def _own_watcher(loop: Any) -> Any:
        if loop._child_watcher is None:
            loop._child_watcher = unix_events.PidfdChildWatcher()
            loop._child_watcher.attach_loop(loop)
        return loop._child_watcher

    def forget_children(loop: Any) -> None:
        """Close what the loop's own watcher has open for children that outlive the loop."""
        if loop._child_watcher is not None:
            for pidfd, _, _ in loop._child_watcher._callbacks.values():
                os.close(pidfd)
            loop._child_watcher._callbacks.clear()

    async def start_child(loop: Any, watcher: Any, protocol: Any, args: Any, *options: Any, **kwargs: Any) -> Any:
        """asyncio's transport of a new child, watched by `watcher`."""
        waiter = loop.create_future()
        transport: Any = unix_events._UnixSubprocessTransport(  # type: ignore[attr-defined]
            loop, protocol, args, *options, waiter=waiter, **kwargs
        )
        watcher.add_child_handler(transport.get_pid(), loop._child_watcher_callback, transport)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        return transport
