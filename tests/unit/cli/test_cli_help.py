"""Every command explains itself: an example, every option, JSON where a program would read it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import cellmill
from cellmill.cli import app, parameters
from cellmill.cli.duplicates import duplicates


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


EVERY = dict(commands())
VERBS = {path: command for path, command in EVERY.items() if not hasattr(command, "commands")}


def test_every_verb_is_there() -> None:
    assert {path[0] for path in VERBS} == {
        *(
            "build",
            "append",
            "commit",
            "merge",
            "card",
            "info",
            "head",
            "query",
            "duplicates",
            "verify",
            "bench",
            "genes",
            "hvg",
            "pca",
            "plan",
            "protect",
            "train",
            "evaluate",
            "run",
        ),
        *("run", "export", "doctor", "demo", "tokens"),
    }
    assert {path[1] for path in VERBS if path[0] == "genes"} == {"vocabulary", "map", "report"}


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert any(line.startswith("$ ") and " ".join(["cellmill", *path]) in line for line in lines)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_examples_can_be_pasted_from_80_columns(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = [line.strip() for line in CliRunner().invoke(app, [*path, "--help"]).stdout.splitlines()]
    wanted = [line.replace("\\[", "[") for line in (EVERY[path].epilog or "").splitlines() if line.startswith("$ ")]
    assert wanted
    assert [line for line in wanted if line not in shown] == []


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_examples_use_options_that_exist(path: tuple[str, ...]) -> None:
    known = {name for parameter in VERBS[path].params for name in parameter.opts}
    lines = [line for line in (VERBS[path].epilog or "").splitlines() if line.startswith("$ ")]
    words = [word for line in lines for word in line.partition("cellmill ")[2].split()]
    used = {word for word in words if word.startswith("-") and word != "-"}
    assert used <= known


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_parameter_is_explained(path: tuple[str, ...]) -> None:
    for parameter in VERBS[path].params:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "argument" or not parameter.is_flag:
            assert parameter.metavar, parameter.name


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_has_json(path: tuple[str, ...]) -> None:
    assert "--json" in {name for parameter in VERBS[path].params for name in parameter.opts}


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_begins_with_one_sentence(path: tuple[str, ...]) -> None:
    text = (VERBS[path].help or "").strip()
    assert text
    assert "\n\n" not in text
    assert text.endswith(".")


def test_help_knows_what_the_rooms_behind_it_have() -> None:
    """Their names and numbers are written out, so that help does not import them."""
    assert list(dict.fromkeys([*cellmill.sources.FORMATS, "store"])) == parameters._KINDS.split(", ")
    defaults = {name: p.default for name, p in inspect.signature(duplicates).parameters.items()}
    assert defaults["min_counts"] == cellmill.store.FEW_COUNTS
    assert defaults["memory"] << 20 == cellmill.store.MEMORY_BYTES


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_shows_no_type_of_flags_and_the_options_of_all_verbs(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(app, [*path, "--help"]).stdout
    assert "<bool>" not in shown and "BOOLEAN" not in shown
    assert "--quiet" in shown and "--debug" in shown


def test_no_command_shows_help() -> None:
    result = CliRunner().invoke(app, [])
    assert "build" in result.output
