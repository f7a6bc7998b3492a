"""Calls in a helper process (floor 2), for processes that were forked from one in which obstore has threads.

Threads do not survive a fork, and obstore's calls would wait for them for ever. A forked process therefore starts a
fresh interpreter, once, and has its calls done there, over a socket. The helper ends when its owner does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from cellmill.errors import RemoteError

__all__ = ["Helper", "helper", "is_inherited", "note_threads"]

_threads_pid: int | None = None
_helper: Helper | None = None
_lock = threading.Lock()


def note_threads() -> None:
    """Remember that obstore has threads in this process from now on."""
    global _threads_pid
    _threads_pid = os.getpid()


def is_inherited() -> bool:
    """Whether obstore was used in a process that this one was forked from, so that it cannot be used here."""
    return _threads_pid is not None and _threads_pid != os.getpid()


def helper() -> Helper:
    """Return the helper of this process."""
    global _helper
    with _lock:
        if _helper is None or _helper.owner != os.getpid() or not _helper.is_running():
            _helper = Helper()
        return _helper


class Helper:
    """A fresh interpreter that does calls for this process, one after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cellmill.storage.forked", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.owner = os.getpid()
        self._connection = Connection(ours.detach())
        self._busy = threading.Lock()

    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of a module returns there; what it raises is raised here."""
        try:
            with self._busy:
                self._connection.send((function, arguments))
                done, result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RemoteError(f"the helper process for reading from a URL has ended ({error!r}); read again") from None
        if not done:
            raise result
        return result


def _serve(connection: Connection) -> None:
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:  # its owner has ended
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, error
        connection.send(answer)


def _renew_lock() -> None:
    """A thread of the parent may have held the lock when the fork came."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
