"""Commands and groups as this command line has them (floor 9): flags without a type, general options on both sides.

Knows typer's classes. Knows nothing of any verb.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cellmill.cli.progress import set_quiet

__all__ = ["MillCommand", "MillSubgroup", "reword", "without_flag_types"]

_GENERAL = ("quiet", "debug")
_PREFIX = "Value error, "  # of pydantic, which typer hands on


def without_flag_types(parameters: Sequence[Any]) -> list[Any]:
    """Return the parameters of a command; help shows a flag without the type that it takes no value of."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return list(parameters)


def reword(error: BaseException) -> None:
    """Take from an error of typer's own the words that another library put before it."""
    message = getattr(error, "message", None)
    if isinstance(message, str) and message.startswith(_PREFIX):
        error.message = message.removeprefix(_PREFIX)  # type: ignore[attr-defined]


def _general(ctx: typer.Context) -> list[Any]:
    return [one for one in ctx.find_root().command.params if one.name in _GENERAL]


def _give_general(ctx: typer.Context) -> None:
    """Give what is general to the application instead of the verb."""
    given = {name: ctx.params.pop(name, False) for name in _GENERAL}
    if given["quiet"]:
        set_quiet(True)
    if given["debug"]:
        ctx.find_root().params["debug"] = True


class MillCommand(TyperCommand):
    """A verb. Takes the options of all verbs (`--quiet`, `--debug`) after its name as well as before it."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the parameters of its own, and the general ones."""
        return without_flag_types([*super().get_params(ctx), *_general(ctx)])

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse all of them."""
        rest = super().parse_args(ctx, args)
        _give_general(ctx)
        return rest


class MillSubgroup(TyperGroup):
    """A verb that has verbs of its own, such as `genes`. Takes the options of all verbs, as these do."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the parameters of its own, and the general ones."""
        return without_flag_types([*super().get_params(ctx), *_general(ctx)])

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse all of them."""
        rest = super().parse_args(ctx, args)
        _give_general(ctx)
        return rest
