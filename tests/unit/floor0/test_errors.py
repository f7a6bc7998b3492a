"""The exception tree is the one its docstring draws, and leaves are what callers expect."""

from __future__ import annotations

import re

import pytest

from cellmill import errors, events, units


def test_the_docstring_names_every_error_and_only_those():
    classes = {name for name in errors.__all__ if name.endswith("Error")}
    drawn = set(re.findall(r"\b[A-Z]\w+Error\b", errors.__doc__)) - {
        "ValueError", "ArithmeticError", "FileNotFoundError", "FileExistsError", "BlockingIOError", "OSError",
        "ImportError", "PermissionError", "TimeoutError",
    }  # fmt: skip
    assert drawn == classes


@pytest.mark.parametrize(("name", "builtin"), re.findall(r"(\w+Error) \((\w+)\)", errors.__doc__ or ""))
def test_an_error_is_also_the_builtin_that_is_drawn(name, builtin):
    assert issubclass(getattr(errors, name), __builtins__[builtin])


def test_wrong_input_exits_with_2_and_broken_stores_with_1():
    assert errors.NotRawCountsError("x").exit_code == 2
    assert errors.CorruptStoreError("x").exit_code == 1


def test_a_missing_dependency_names_the_extra():
    error = errors.MissingDependencyError("torch", extra="torch", needed_for="the loader")
    assert "in the folder of cellmill's source, with: pip install -c constraints.txt '.[torch]'" in str(error)


def test_nearest_ignores_case_and_says_nothing_when_nothing_is_near():
    assert errors.nearest("TISUE", ["tissue", "assay"]) == " Did you mean 'tissue'?"
    assert errors.nearest("zzz", ["tissue"]) == ""


def test_listeners_hear_only_what_is_emitted_inside():
    seen = []
    events.emit("before")
    with events.listening(seen.append):
        events.emit("inside", done=1, total=2, unit="cells")
    events.emit("after")
    assert [event.stage for event in seen] == ["inside"]


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (units.size_text(0), "0 B"),
        (units.size_text(2**20 * 1.5), "1.5 MiB"),
        (units.size_text(2**50), "1024.0 TiB"),
        (units.time_text(59.94), "59.9 s"),
        (units.time_text(3600 * 3 + 60), "3 h 1 min"),
        (units.count_text(1_000_000), "1,000,000"),
        (units.plural(1, "cell"), "1 cell"),
        (units.plural(0, "task"), "0 tasks"),
        (units.plural(2000, "process", "processes"), "2,000 processes"),
    ],
)
def test_numbers_read_as_people_write_them(got, expected):
    assert got == expected


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_all_is_100_percent_and_nothing_less_is(digits):
    everything, nothing = f"{1:.{digits}%}", f"{0:.{digits}%}"
    assert units.share_text(1.0, digits=digits) == everything
    assert units.share_text(0.0, digits=digits) == nothing
    for short in (18_704 / 18_708, 1 - 1e-12, 0.99999):
        assert units.share_text(short, digits=digits).startswith("99")
    assert units.share_text(1e-9, digits=digits).startswith("<")
    steps = 10 ** (digits + 2)
    for step in range(1, steps):  # and what has an exact text has that one
        assert units.share_text(step / steps, digits=digits) == f"{step / steps:.{digits}%}"
