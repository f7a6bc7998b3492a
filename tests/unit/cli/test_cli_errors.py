"""Errors on the command line: message, notes, exit code."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from cellmill import errors
from cellmill.cli.application import MillGroup
from cellmill.cli.errors import report
from cellmill.cli.progress import is_quiet, set_quiet


def shown(error: BaseException, *, debug: bool = False) -> tuple[int | None, str]:
    out = io.StringIO()
    code = report(error, debug=debug, console=Console(file=out, width=80))
    return code, out.getvalue()


def every_leaf() -> list[type[errors.CellmillError]]:
    found = [getattr(errors, name) for name in errors.__all__ if name != "nearest"]
    return [one for one in found if one is not errors.MissingDependencyError]


@pytest.mark.parametrize("kind", every_leaf())
def test_every_error_gives_its_own_exit_code(kind: type[errors.CellmillError]) -> None:
    code, text = shown(kind("what was found"))
    assert code == kind.exit_code
    assert text.startswith("error: what was found")
    assert "Traceback" not in text


def test_input_errors_exit_with_2_and_store_errors_with_1() -> None:
    assert shown(errors.NotRawCountsError("x"))[0] == 2
    assert shown(errors.CorruptStoreError("x"))[0] == 1


def test_notes_say_where() -> None:
    error = errors.FormatError("truncated")
    error.add_note("in the stage: build the store")
    assert "in the stage: build the store" in shown(error)[1]


def test_message_is_not_taken_for_markup() -> None:
    _, text = shown(errors.InputError("layers['counts'] and [red]X[/red]: pass --counts [layers/counts]"))
    assert "layers['counts'] and [red]X[/red]: pass --counts [layers/counts]" in text


def test_long_message_is_not_broken_into_lines() -> None:
    path = "/".join(["a-long-folder"] * 20)
    assert path in shown(errors.InputError(f"{path}: no such file"))[1]


def test_unexpected_error_is_short_and_says_how_to_see_more() -> None:
    code, text = shown(RuntimeError("boom"))
    assert code == 1
    assert "RuntimeError: boom" in text
    assert "CELLMILL_DEBUG=1" in text
    assert "Traceback" not in text


def test_debug_shows_the_traceback() -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        code, text = shown(error, debug=True)
    assert code == 1
    assert "Traceback" in text
    assert "CELLMILL_DEBUG" not in text


def test_interrupt_gives_130() -> None:
    code, text = shown(KeyboardInterrupt())
    assert code == 130
    assert "interrupted" in text


@pytest.mark.parametrize("error", [typer.Exit(3), typer.Abort(), typer.BadParameter("x"), BrokenPipeError()])
def test_typers_own_errors_are_left_to_typer(error: BaseException) -> None:
    assert shown(error) == (None, "")


def application(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=MillGroup, pretty_exceptions_enable=False)

    @app.callback()
    def _options(debug: bool = False) -> None: ...

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("wrong"), 2),
        (errors.FrameError("bad frame"), 1),
        (ValueError("not ours"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
        (typer.BadParameter("no"), 2),
    ],
)
def test_exit_code_of_the_application(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLMILL_DEBUG", raising=False)
    result = CliRunner().invoke(application(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("arguments", "environment"), [(["--debug", "fail"], {}), (["fail"], {"CELLMILL_DEBUG": "1"})])
def test_debug_is_an_option_and_a_variable(arguments: list[str], environment: dict[str, str]) -> None:
    result = CliRunner().invoke(application(errors.InputError("wrong")), arguments, env=environment)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "error: wrong" in result.stderr


@pytest.mark.parametrize(
    "words", [["--debug", "info"], ["info", "--debug"], ["genes", "report", "--debug"], ["genes", "--debug", "report"]]
)
def test_debug_may_stand_on_both_sides_of_the_verb(
    words: list[str], call: Callable[..., Result], tmp_path: Path
) -> None:
    result = call(*words, tmp_path / "none.mill")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and "error: " in result.stderr


@pytest.mark.parametrize("words", [["-q", "verify"], ["verify", "-q"], ["verify", "--quiet"], ["verify"]])
def test_quiet_may_stand_on_both_sides_of_the_verb(
    words: list[str], call: Callable[..., Result], small_store: Path
) -> None:
    try:
        result = call(*words, small_store)
        assert result.exit_code == 0, result.output
        assert ("verifying" not in result.stderr) == (len(words) == 2) == is_quiet()
    finally:
        set_quiet(False)


def test_what_a_library_says_of_a_choice_is_not_handed_on(call: Callable[..., Result], small_store: Path) -> None:
    result = call("hvg", small_store, "--flavor", "foo")
    assert result.exit_code == 2
    assert "'foo' is not one of" in result.stderr and "Value error" not in result.stderr


def test_an_export_without_a_format_says_where_it_belongs(call: Callable[..., Result], small_store: Path) -> None:
    result = call("export", small_store, "out.h5ad")
    assert result.exit_code == 2
    assert "cellmill export h5ad STORE FILE" in " ".join(result.stderr.replace("│", " ").split())
