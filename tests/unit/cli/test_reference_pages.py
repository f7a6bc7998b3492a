"""docs/reference is what the code says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import cellmill as cm
from cellmill.cli import app

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def builder() -> Iterator[ModuleType]:
    for package in ("torch", "lightning", "scvi", "anndata"):
        pytest.importorskip(package, reason="the reference describes the adapters of every extra")
    spec = importlib.util.spec_from_file_location("build_reference", REPOSITORY / "scripts" / "build_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_reference"]


def test_pages_are_current(builder: ModuleType) -> None:
    for path, text in builder.pages().items():
        assert path.is_file(), f"{path} is missing: python scripts/build_reference.py"
        assert path.read_text(encoding="utf-8") == text, f"{path} is not current: python scripts/build_reference.py"


def test_pages_do_not_depend_on_where_or_when(builder: ModuleType) -> None:
    for text in builder.pages().values():
        assert " at 0x" not in text
        assert str(REPOSITORY) not in text


def test_every_command_has_a_section(builder: ModuleType) -> None:
    page = builder.cli_page()
    for path, _ in builder.commands(typer.main.get_command(app)):
        assert f"# {' '.join(['cellmill', *path])}\n" in page


def test_every_public_name_has_a_section(builder: ModuleType) -> None:
    page = builder.api_page()
    for name in cm.__all__:
        assert f"### cm.{name}\n" in page


def test_numpydoc_becomes_markdown(builder: ModuleType) -> None:
    doc = """Return x.

    Parameters
    ----------
    x : int
        A number,
        in two lines.
    y
        Another.

    Examples
    --------
    >>> f(1)  # doctest: +SKIP
    1
    """
    assert builder.doc_lines(doc) == [
        *("Return x.", "", "**Parameters**", ""),
        *("- `x` (int): A number, in two lines.", "- `y`: Another.", ""),
        *("**Examples**", "", "```pycon", ">>> f(1)", "1", "```", ""),
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_document_is_linked(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    folder = (REPOSITORY / page).parent
    linked = {(folder / link).resolve() for link in re.findall(r"\]\(([^)#:]+)", text)}
    there = {path for path in (REPOSITORY / "docs").rglob("*.md") if path.name != "index.md"}
    assert there - linked == set()
    assert page == "docs/index.md" or REPOSITORY / "docs" / "index.md" in linked
    assert [link for link in linked if not link.exists()] == []
