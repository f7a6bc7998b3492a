"""What the documents show is what comes out: the tutorial and the example of the README are run as they stand.

A ```console block is a list of `$ command` lines, each with the output that follows it; a ```python block is run in the
namespace of the page, and a ```text block right after it is its output. In an output, `...` stands for anything, and
the amount of white space and of ruled lines does not count. A ```yaml block after "Save this as `NAME`" is saved.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"[Ss]ave this as `(?P<name>[^`]+)`")

pytest.importorskip("torch", reason="the pages take batches, which are torch tensors")


@dataclass(frozen=True)
class Block:
    kind: str
    body: str
    before: str
    line: int


def blocks_of(text: str) -> list[Block]:
    found, end = [], 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match["kind"], match["body"], text[end : match.start()], line))
        end = match.end()
    return found


def normal(text: str) -> str:
    text = re.sub(r"[─╭╮╰╯]+", "─", text)
    return "\n".join(line for raw in text.splitlines() if (line := " ".join(raw.split())).strip("─ "))


def matches(shown: str, found: str) -> bool:
    parts = [re.escape(part.strip()) for part in normal(shown).split("...")]
    return re.fullmatch(r"\s*" + r"(?:.|\n)*?".join(f"{part}\\s*" for part in parts), normal(found)) is not None


def run_python(body: str, namespace: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(body, "page", "exec"), namespace)
    return out.getvalue()


def run_command(command: str) -> str:
    words = shlex.split(command)
    assert words[0] == "cellmill", command
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "cellmill", *words[1:]], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_console(body: str, where: str) -> None:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        found = run_command(command)
        assert not shown.strip() or matches(shown, found), f"{where}: $ {command}\nshown:\n{shown}\nfound:\n{found}"


def run_page(path: Path) -> int:
    """Run every block of a page in the current folder; return how many outputs were run or compared."""
    namespace: dict[str, object] = {"__name__": "page"}
    output: str | None = None
    n = 0
    for block in blocks_of(path.read_text(encoding="utf-8")):
        where = f"{path.name}, line {block.line}"
        saved = SAVED.search(block.before)
        if block.kind == "yaml" and saved:
            Path(saved["name"]).write_text(block.body, encoding="utf-8")
        elif block.kind == "console":
            run_console(block.body, where)
        elif block.kind == "text" and output is not None and not block.before.strip():
            assert matches(block.body, output), f"{where}\nshown:\n{block.body}\nfound:\n{output}"
        output = run_python(block.body, namespace) if block.kind == "python" else None
        n += block.kind in ("console", "python", "text")
    return n


def test_tutorial_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(REPOSITORY / "docs" / "tutorials" / "first-store.md") >= 15


def test_the_page_on_vocabularies_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(REPOSITORY / "docs" / "how-to" / "vocabularies.md") >= 9


def test_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [block for block in blocks_of((REPOSITORY / "README.md").read_text("utf-8")) if block.kind == "python"]
    assert found
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in found:
        run_python(block.body, namespace)


def test_comparison_notices_a_difference() -> None:
    assert matches("a  b\n...\n│ c ...", "a b\nx\ny\n│ c 12 │\n")
    assert matches("╭──╮\na", "╭─────╮\n a\n\n")
    assert not matches("a b", "a c")
    assert not matches("a", "a\nb")
    assert not matches("...\nb", "a\n")


PAGES = [*sorted((REPOSITORY / "docs").rglob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in targets:
        file, _, _ = target.partition("#")
        assert not file or (page.parent / file).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_named_in_pages_exist(page: Path) -> None:
    import typer.main

    from cellmill.cli import app

    verbs = set(typer.main.get_command(app).commands)
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^    (?:\S*/bin/)?|^\$ |`)cellmill ([a-z0-9-]+)", text, flags=re.MULTILINE)
    assert set(named) <= verbs
