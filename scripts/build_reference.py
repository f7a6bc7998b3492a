"""Write docs/reference/cli.md and docs/reference/api.md from the code.

    python scripts/build_reference.py            writes both
    python scripts/build_reference.py --check    writes nothing; exit code 1 when one is not current

The command line is read from the typer application, the API from `cellmill.__all__`: signatures and docstrings.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main

import cellmill
from cellmill.cli import app

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/build_reference.py from the code; change it there. -->"

GROUPS = {
    "Stores": ("open", "build", "append", "merge", "Store", "Vocabulary", "build_vocabulary", "hvg", "card"),
    "Mixtures": ("Mixture", "Component", "Split", "Exclusion", "Balance", "Plan"),
    "Batches": ("Loader", "Sets", "Pairs", "Chunks", "Dataset", "Batch", "tokens", "lightning", "scvi", "accelerate"),
    "Training and evaluation": ("train", "evaluate", "run"),
    "Out and around": ("export", "errors", "__version__"),
}
LISTED_SECTIONS = {"Parameters", "Attributes", "Returns", "Yields", "Raises"}


# ---- command line ---------------------------------------------------------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its path, groups too, in the order of registration."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def default_text(parameter: Any) -> str:
    if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
        return ""
    default = parameter.default
    if default is None or default == () or default == []:
        return ""
    return f"`{getattr(default, 'value', default)}`"


def option_rows(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if parameter.param_type_name != "option" or getattr(parameter, "hidden", False):
            continue
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else f" `{parameter.metavar}`"
        rows.append(f"| {names}{value} | {cell(parameter.help or '')} | {default_text(parameter)} |")
    return rows


def usage(path: tuple[str, ...], command: Any) -> str:
    words = ["cellmill", *path]
    if hasattr(command, "commands"):
        words.append("COMMAND")
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = parameter.metavar + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"])


def examples(command: Any) -> list[str]:
    lines = (command.epilog or "").replace("\\[", "[").split("\n")
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def command_page(path: tuple[str, ...], command: Any) -> list[str]:
    title = " ".join(["cellmill", *path])
    lines = [f"{'#' * (1 + max(1, len(path)))} {title}", "", (command.help or "").strip(), ""]
    lines += ["```text", usage(path, command), "```", ""]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{p.metavar}` | {cell(p.help or '')} |" for p in arguments]
        lines.append("")
    if rows := option_rows(command):
        lines += ["| option | | default |", "|---|---|---|", *rows, ""]
    if shown := examples(command):
        lines += ["```console", *(f"$ {line}" for line in shown), "```", ""]
    return lines


def cli_page() -> str:
    lines = [NOTE, "", "# The command line", ""]
    lines += [
        "Every verb has `--help` with an example. Exit codes: 0 done, 2 wrong use or wrong input, 130 interrupted,",
        "1 anything else. Progress and errors go to standard error, results to standard output.",
        "",
    ]
    for path, command in commands(typer.main.get_command(app)):
        lines += command_page(path, command)
    return "\n".join(lines).rstrip() + "\n"


# ---- Python ---------------------------------------------------------------------------------------------------------


def sections(doc: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, lines) of a numpydoc docstring; the first has no title."""
    title, body = "", []
    lines = doc.splitlines()
    i = 0
    while i < len(lines):
        underlined = i + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[i + 1].strip())
        if underlined and lines[i].strip():
            yield title, body
            title, body = lines[i].strip(), []
            i += 2
            continue
        body.append(lines[i])
        i += 1
    yield title, body


def listed(lines: Iterable[str]) -> list[str]:
    """Entries of a Parameters-like section as a list, each with its description."""
    found: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        if line.startswith(" ") and found:
            found[-1] += (" " if "\n" not in found[-1] and ": " in found[-1] else ": ") + line.strip()
            continue
        name, colon, kind = line.partition(" : ")
        found.append(f"- `{name.strip()}`" + (f" ({kind.strip()})" if colon else ""))
    return found


def doc_lines(doc: str) -> list[str]:
    """Return a numpydoc docstring as Markdown."""
    result: list[str] = []
    for title, body in sections(inspect.cleandoc(doc)):
        while body and not body[-1].strip():
            body.pop()
        if title:
            result += [f"**{title}**", ""]
        if title in LISTED_SECTIONS:
            result += markdown(listed(body))
        elif title == "Examples":
            result += ["```pycon", *(line.removesuffix("  # doctest: +SKIP") for line in body), "```"]
        else:
            result += markdown(body)
        result.append("")
    return result


def markdown(lines: list[str]) -> list[str]:
    """Prose as it is, with literal blocks (text that ends in `::`) fenced."""
    result: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        if not line.rstrip().endswith("::"):
            result.append(re.sub(r"``([^`]+)``", r"`\1`", line))
            i += 1
            continue
        result += [line.rstrip()[:-1], "", "```text"]
        i += 1
        block = []
        while i < len(lines) and (not lines[i].strip() or lines[i].startswith(" ")):
            block.append(lines[i])
            i += 1
        result += inspect.cleandoc("\n".join(["", *block])).strip("\n").splitlines()
        result += ["```", ""]
    return result


def signature_text(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [
        p for p in signature.parameters.values() if p.name not in (() if inspect.isclass(value) else ("self", "cls"))
    ]
    is_class = inspect.isclass(value)
    returns = "" if is_class or signature.return_annotation is signature.empty else f" -> {annotation(signature)}"
    texts = []
    star = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            texts.append("*")
            star = True
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        texts.append(parameter_text(parameter))
    one_line = f"{name}({', '.join(texts)}){returns}"
    if len(one_line) <= 100:
        return one_line
    inner = "".join(f"    {text},\n" for text in texts)
    return f"{name}(\n{inner}){returns}"


def annotation(signature: inspect.Signature) -> str:
    returned = signature.return_annotation
    return returned if isinstance(returned, str) else getattr(returned, "__name__", str(returned))


def parameter_text(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = parameter.annotation
    text = stars + parameter.name
    has_kind = kind is not parameter.empty
    if has_kind:
        text += f": {kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    if parameter.default is not parameter.empty:
        default = (
            re.sub(r" at 0x[0-9a-f]+", "", repr(parameter.default))
            .replace("mappingproxy({})", "{}")
            .replace("<factory>", "...")
        )
        text += f" = {default}" if has_kind else f"={default}"
    return text


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself, in order."""
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        target = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(target, property) or hasattr(target, "func") or inspect.isfunction(target):
            yield name, target


def entry(name: str, value: Any, *, level: int) -> list[str]:
    """Return the part of the page about one name."""
    if isinstance(value, str):
        return [f"{'#' * level} {name}", "", "The version of cellmill, as a text.", ""]
    if isinstance(value, ModuleType):
        return module_entry(name, value, level=level)
    lines = [f"{'#' * level} {name}", ""]
    if callable(value):
        lines += ["```python", signature_text(name, value), "```", ""]
    lines += doc_lines(inspect.getdoc(value) or "")
    if inspect.isclass(value) and not issubclass(value, BaseException):
        lines += member_entries(name, value)
    return lines


def member_entries(name: str, kind: type) -> list[str]:
    lines: list[str] = []
    for member, target in members(kind):
        doc = inspect.getdoc(target.func if hasattr(target, "func") else target) or ""
        if inspect.isfunction(target):
            lines += ["```python", signature_text(f"{name.rpartition('.')[2]}.{member}", target), "```", ""]
        else:
            lines += [f"`{name.rpartition('.')[2]}.{member}`", ""]
        lines += doc_lines(doc)
    return lines


def module_entry(name: str, module: ModuleType, *, level: int) -> list[str]:
    lines = [f"{'#' * level} {name}", ""]
    lines += doc_lines(module.__doc__ or "")
    if name.endswith(".errors"):  # its docstring is the tree, with a line for each
        return lines
    for inner in sorted(module.__all__):
        value = getattr(module, inner)
        if inner in cellmill.__all__:  # has a section of its own
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            lines += entry(f"{name}.{inner}", value, level=level + 1)
    return lines


def api_page() -> str:
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(cellmill.__all__):
        different = sorted(set(grouped) ^ set(cellmill.__all__))
        raise SystemExit(f"scripts/build_reference.py: GROUPS and cellmill.__all__ differ in {', '.join(different)}")
    lines = [
        NOTE,
        "",
        "# The Python API",
        "",
        "`import cellmill as cm`. What stands here is public; the rest may change.",
        "",
    ]
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += entry(f"cm.{name}", getattr(cellmill, name), level=3)
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Return the text of every generated page by its path."""
    return {REFERENCE / "cli.md": cli_page(), REFERENCE / "api.md": api_page()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is not current")
    arguments = parser.parse_args()
    stale = 0
    for path, text in pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if arguments.check:
            print(f"{path}: not current; run: python scripts/build_reference.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
