"""The command line (floor 9): one file per verb, thin over the Python API.

Knows how things are shown: tables, bars, JSON, exit codes. Must not know how anything is computed: what a verb does, a
Python program can do with one call. The verbs are imported by `main`, not here, so that whatever happens meanwhile
(Ctrl-C, an environment that cannot be meant) ends as it does later: in a line and an exit code.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellmill.cli.application import app as app

__all__ = ["app", "main"]

_EXIT_FAILURE, _EXIT_INTERRUPTED, _EXIT_BROKEN_PIPE = 1, 130, 141  # the last two: 128 + SIGINT, 128 + SIGPIPE


def __getattr__(name: str) -> Any:
    """Import the application when it is first asked for (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module 'cellmill.cli' has no attribute {name!r}")
    return importlib.import_module("cellmill.cli.application").app


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 2 wrong use or wrong input, 130 interrupted, 141 nobody reads the output any more, 1 all else.
    """
    try:
        _say_what_can_be_said()
        interrupts = importlib.import_module("cellmill.cli.interrupts")
        interrupts.remember_interrupts()
        try:
            _run()
        except SystemExit as end:
            if end.code in (0, None) and interrupts.was_interrupted():
                raise KeyboardInterrupt from None  # somebody took it for a failure of his own, and went on
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        os.write(2, b"interrupted\n")
        sys.exit(_EXIT_INTERRUPTED)
    except (SystemExit, BrokenPipeError) as error:
        if not _is_broken_pipe(error):
            raise
        # Not by the interpreter's end: it would flush standard output once more and complain about the same pipe,
        # and libraries whose threads are still starting abort there now and then.
        sys.stderr.flush()
        os._exit(_EXIT_BROKEN_PIPE)
    sys.exit(0)


def _run() -> None:
    try:
        app = importlib.import_module("cellmill.cli.application").app
    except Exception as error:
        # Only errors of our own, such as of a variable of the environment; they say themselves how they end.
        if not hasattr(error, "exit_code"):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    app()


def _say_what_can_be_said() -> None:
    """Let characters that the terminal's encoding lacks become question marks instead of errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_broken_pipe(error: BaseException) -> bool:
    """Return whether nobody reads standard output any more; typer and rich make a bare exit with 1 of that."""
    if isinstance(error, SystemExit) and error.code != _EXIT_FAILURE:
        return False
    return isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)
