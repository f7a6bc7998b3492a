"""Tables, facts and JSON on standard output (floor 9).

Knows rich and how numbers are shown. Knows nothing of stores or runs.
"""

from __future__ import annotations

import dataclasses
import decimal
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cellmill.units import count_text

__all__ = [
    "console",
    "error_console",
    "examples",
    "facts",
    "plain",
    "print_json",
    "show_facts",
    "show_table",
    "value_text",
]

_LOG_WIDTH = 120
_ANY_WIDTH = 1_000_000


def console() -> Console:
    """Return the console of standard output; in a file or pipe it is at least 120 columns wide."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=max(out.width, _LOG_WIDTH))


def error_console() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, highlight=False)


def examples(*lines: str) -> str:
    """Return the epilog of a command's help: its examples, one per line."""
    return "\n\n".join(["Examples:", *(f"$ {line}".replace("[", "\\[") for line in lines)])


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: dataclasses, paths, NumPy and Arrow values become plain ones; NaN is null."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, decimal.Decimal):  # DuckDB's sums of whole numbers are HUGEINT, which Arrow gives as decimals
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Path):
        return str(value)
    for method in ("to_pylist", "tolist", "as_py", "isoformat"):
        if hasattr(value, method):
            return plain(getattr(value, method)())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def print_json(value: Any) -> None:
    """Write `value` as JSON to standard output."""
    # Where the output cannot hold every character, JSON's own escapes lose none.
    can_hold_all = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=not can_hold_all))


def value_text(value: Any) -> str:
    """Return one value as a table shows it: thousands separated, floats to four digits, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count_text(value)
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def facts(pairs: Mapping[str, Any]) -> Table:
    """Return a two-column grid of names and values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(Text(name), value if isinstance(value, Text) else Text(value_text(value)))
    return grid


def show_facts(title: str, pairs: Mapping[str, Any]) -> None:
    """Print a panel of names and values."""
    console().print(Panel(facts(pairs), title=Text(title, style="bold"), title_align="left", expand=False))


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    raw: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print rows as a table, numbers to the right; where it is too wide, each row as a block of names and values.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Values in the order of `columns`.
    title : str
        Line above the table.
    raw : sequence of str
        Columns whose integers are names (row ids, hashes), shown without separators.
    whole : sequence of str
        Columns whose values are not broken into lines; the others take what room is left.
    """
    body = [list(row) for row in rows]
    out = console()
    table = Table(
        title=Text(title, style="bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, name in enumerate(columns):
        values = [row[index] for row in body if row[index] is not None]
        is_number = bool(values) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold", no_wrap=name in whole)
    texts = [
        [Text(str(v) if name in raw and v is not None else value_text(v)) for name, v in zip(columns, row, strict=True)]
        for row in body
    ]
    for line in texts:
        table.add_row(*line)
    least = Measurement.get(out, out.options.update(max_width=_ANY_WIDTH), table).minimum
    if least <= out.width or not body:
        out.print(table)
    else:
        _show_turned(out, columns, texts, title=title)


def _show_turned(out: Console, columns: Sequence[str], rows: Sequence[Sequence[Text]], *, title: str) -> None:
    if title:
        out.print(Text(title, style="bold"))
    for number, row in enumerate(rows, start=1):
        out.print(Rule(Text(str(number)), align="left", style="dim"))
        out.print(facts(dict(zip(columns, row, strict=True))))
