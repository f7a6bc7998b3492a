"""`cellmill query`: SQL over the cells' metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, plain, print_json, show_table
from cellmill.cli.parameters import AsJson, OverwriteFile, StoreArgument, check_free, check_out
from cellmill.units import count_text

__all__ = ["EPILOG", "TABLE_ENDINGS", "distinct_names", "query", "write_table"]

EPILOG = examples(
    'cellmill query atlas.mill "SELECT cell_type, count(*) FROM obs GROUP BY 1"',
    'cellmill query atlas.mill "FROM obs WHERE total_counts > 5000" -o rich.csv',
)
TABLE_ENDINGS = (".csv", ".parquet")
_SHOWN_ROWS = 50
_HASH_COLUMNS = ("row", "uid", "fingerprint")


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table` as CSV or Parquet, as the ending of `path` says.

    Raises
    ------
    ConfigError
        For any other ending, or when `path` is a folder.
    NotFoundError
        When the folder of `path` is not there.
    """
    check_out(path, endings=TABLE_ENDINGS)
    if path.suffix == ".csv":
        decoded = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
        pyarrow.csv.write_csv(pa.table(decoded, names=table.column_names), path)
    else:
        pyarrow.parquet.write_table(table, path)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return `names`, each once: SQL may call several columns alike, a JSON object and a Parquet file may not.

    Examples
    --------
    >>> distinct_names(["a", "a", "b", "a"])
    ['a', 'a_2', 'b', 'a_3']
    """
    taken, found = set(names), []
    for i, name in enumerate(names):
        count, new = 1 + list(names[:i]).count(name), name
        while (count > 1 and new == name) or (new != name and new in taken):
            new = f"{name}_{count}"
            count += 1
        taken.add(new)
        found.append(new)
    return found


def query(
    store: StoreArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the table obs, with its column `row`.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the result here: .csv or .parquet.")
    ] = None,
    overwrite: OverwriteFile = False,
    as_json: AsJson = False,
) -> None:
    """Run one SQL SELECT (DuckDB) over obs, the table of cells."""
    opened = cm.open(store)
    if out is not None:
        check_out(out, endings=TABLE_ENDINGS)
        check_free(out, overwrite=overwrite)
    table = opened.query(sql)
    table = table.rename_columns(distinct_names(table.column_names))
    if out is not None:
        write_table(table, out)
    if as_json:
        print_json(table.to_pylist())
        return
    if out is not None:
        console().print(Text(f"{count_text(table.num_rows)} rows written to {out}"), soft_wrap=True)
        return
    rows = [[plain(value) for value in row.values()] for row in table.slice(0, _SHOWN_ROWS).to_pylist()]
    show_table(table.column_names, rows, raw=_HASH_COLUMNS)
    if table.num_rows > _SHOWN_ROWS:
        rest = count_text(table.num_rows - _SHOWN_ROWS)
        console().print(Text(f"... and {rest} rows more: -o FILE.csv or --json gives all"), soft_wrap=True)
