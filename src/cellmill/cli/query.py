"""`cellmill query`: SQL over the cells' metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json, show_table
from cellmill.cli.parameters import AsJson, StoreArgument
from cellmill.errors import ConfigError
from cellmill.units import count_text

__all__ = ["EPILOG", "query", "write_table"]

EPILOG = examples(
    'cellmill query atlas.mill "SELECT cell_type, count(*) AS cells FROM obs GROUP BY 1 ORDER BY 2 DESC"',
    'cellmill query atlas.mill "SELECT * FROM obs WHERE total_counts > 5000" -o rich-cells.parquet',
)
_SHOWN_ROWS = 50
_HASH_COLUMNS = ("row", "uid", "fingerprint")


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table` as CSV or Parquet, as the ending of `path` says.

    Raises
    ------
    ConfigError
        For any other ending.
    """
    if path.suffix == ".csv":
        decoded = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
        pyarrow.csv.write_csv(pa.table(decoded, names=table.column_names), path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        raise ConfigError(f"{path}: cannot tell the format by the ending {path.suffix!r}; use .csv or .parquet")


def query(
    store: StoreArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the table obs, with its column `row`.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the result here: .csv or .parquet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one SQL SELECT (DuckDB) over obs, the table of cells."""
    table = cm.open(store).query(sql)
    if out is not None:
        write_table(table, out)
    if as_json:
        print_json(table.to_pylist())
        return
    if out is not None:
        console().print(Text(f"{count_text(table.num_rows)} rows written to {out}"), soft_wrap=True)
        return
    rows = [list(row.values()) for row in table.slice(0, _SHOWN_ROWS).to_pylist()]
    show_table(table.column_names, rows, raw=_HASH_COLUMNS)
    if table.num_rows > _SHOWN_ROWS:
        rest = count_text(table.num_rows - _SHOWN_ROWS)
        console().print(Text(f"... and {rest} rows more: -o FILE.csv or --json gives all"), soft_wrap=True)
