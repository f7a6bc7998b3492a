"""Errors as a user of the command line meets them (floor 9).

Knows exit codes and colours. Knows nothing of what raised.
"""

from __future__ import annotations

import os
import traceback

import typer
from rich.console import Console
from rich.text import Text

from cellmill.errors import CellmillError

__all__ = ["EXIT_FAILURE", "EXIT_INTERRUPTED", "EXIT_USAGE", "debug_wanted", "report"]

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells expect


def debug_wanted() -> bool:
    """Return whether CELLMILL_DEBUG asks for tracebacks."""
    return os.environ.get("CELLMILL_DEBUG", "").strip().casefold() not in {"", "0", "false", "no"}


def _is_typers_own(error: BaseException) -> bool:
    # ClickException has no stable import path across typer versions (newer ones vendor click), but always this method.
    return isinstance(error, typer.Exit | typer.Abort | BrokenPipeError) or hasattr(error, "format_message")


def _show(error: BaseException, headline: str, console: Console) -> None:
    message = Text.assemble(("error: ", "bold red"), (headline, "red"))
    console.print(message, soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        console.print(Text(f"  {note}"), soft_wrap=True)


def report(error: BaseException, *, debug: bool, console: Console) -> int | None:
    """Show `error` to the user and return the exit code, or None when typer itself should deal with it.

    Parameters
    ----------
    error : BaseException
        What ended the command.
    debug : bool
        Show the traceback as well.
    console : Console
        Where to write; standard error, so that `--json` output stays clean.

    Returns
    -------
    int or None
        2 for wrong use or wrong input, 130 for Ctrl-C, 1 for anything else.
    """
    if _is_typers_own(error):
        return None
    if isinstance(error, KeyboardInterrupt):
        console.print(Text("interrupted: run the same command again to continue", style="yellow"), soft_wrap=True)
        return EXIT_INTERRUPTED
    if debug:
        console.print(Text("".join(traceback.format_exception(error))), soft_wrap=True)
    if isinstance(error, CellmillError):
        _show(error, str(error), console)
        return error.exit_code
    _show(error, f"{type(error).__name__}: {error}", console)
    if not debug:
        hint = "This was not expected. For the whole traceback: set CELLMILL_DEBUG=1, or `cellmill --debug ...`"
        console.print(Text(f"  {hint}"), soft_wrap=True)
    return EXIT_FAILURE
