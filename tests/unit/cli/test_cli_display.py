"""What is shown: JSON that every program reads, tables that people read."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cellmill.cli.build import renames
from cellmill.cli.display import examples, plain, print_json, show_facts, show_table, value_text
from cellmill.cli.parameters import listed
from cellmill.errors import ConfigError


@dataclass(frozen=True)
class Sample:
    path: Path
    shares: tuple[float, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (float("nan"), None),
        (float("inf"), None),
        (np.float64("nan"), None),
        (Path("a/b"), "a/b"),
        (Sample(Path("x"), (0.5, float("nan"))), {"path": "x", "shares": [0.5, None]}),
        ({1: {"a": (True, None)}}, {"1": {"a": [True, None]}}),
        (pa.scalar("x"), "x"),
        (Decimal("12"), 12),
        (Decimal("0.5"), 0.5),
        (pa.array([1, None]), [1, None]),
        ({"b"}, ["b"]),
    ],
)
def test_everything_becomes_plain_json(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_json_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"long": "x y " * 200, "sign": "±"})
    assert json.loads(capsys.readouterr().out) == {"long": "x y " * 200, "sign": "±"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (None, "–"),
        (True, "yes"),
        (0.123456, "0.1235"),
        (12345.6, "12,346"),
        (["a", 1], "a, 1"),
        ("x", "x"),
    ],
)
def test_value_text(value: object, text: str) -> None:
    assert value_text(value) == text


def test_table_shows_every_value_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["row", "name"], [[12345, "[bold]a[/bold]"], [None, "b"]], raw=["row"])
    text = capsys.readouterr().out
    assert "12345" in text
    assert "[bold]a[/bold]" in text
    assert "–" in text


def test_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["cells"], [[1], [1000]])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()]
    assert len({len(line.rstrip()) for line in lines}) == 1


def test_a_name_is_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts("[red]title[/red]", {"[bold]a[/bold]": 1, "shared with [/x]": 2})
    text = capsys.readouterr().out
    for word in ("[red]title[/red]", "[bold]a[/bold]", "shared with [/x]"):
        assert word in text


@pytest.mark.parametrize("n_columns", [3, 30])
def test_a_table_is_turned_where_it_is_too_wide(n_columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"column_{i}" for i in range(n_columns)]
    show_table(names, [[f"value {i}" for i in range(n_columns)], list(range(n_columns))])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (names in lines) == (n_columns == 3)
    turned = [line for line in lines if line[:1] == [names[-1]]]
    assert turned == ([] if n_columns == 3 else [[names[-1], "value", "29"], [names[-1], "29"]])


def test_json_escapes_what_the_output_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", out)
    print_json({"sign": "±"})
    out.flush()
    assert json.loads(out.buffer.getvalue()) == {"sign": "±"}  # type: ignore[attr-defined]


def test_examples_are_paragraphs() -> None:
    assert examples("cellmill a", "cellmill b") == "Examples:\n\n$ cellmill a\n\n$ cellmill b"


def test_renames() -> None:
    assert renames(["donor=donor_id", " a = b "]) == {"donor": "donor_id", "a": "b"}


@pytest.mark.parametrize("wrong", [["donor"], ["=x"], ["x="], ["a=b", "a=c"]])
def test_wrong_renames_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match="--rename"):
        renames(wrong)


def test_listed() -> None:
    assert listed(None) is None
    assert listed("a, b,,c") == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_a_list_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="commas"):
        listed(text)
