"""The table of a store's genes (floor 3): its columns, and a check of what a file says."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import CorruptStoreError

__all__ = ["GENE_SCHEMA", "check_genes"]

GENE_SCHEMA = pa.schema(
    [("gene_id", pa.string()), ("symbol", pa.string()), ("token", pa.int64()), ("detection_rate", pa.float64())]
)


def check_genes(table: pa.Table, *, where: str) -> None:
    """Check that a table is one of genes: its columns, their types, and that each gene has an id of its own.

    Raises
    ------
    CorruptStoreError
        When it is not.
    """
    if table.schema.names != GENE_SCHEMA.names or table.schema.types != GENE_SCHEMA.types:
        columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise CorruptStoreError(f"{where}: not a table of genes (columns {columns}). Build the store again.")
    ids = table.column("gene_id")
    if ids.null_count or pc.count_distinct(ids).as_py() != len(ids):
        raise CorruptStoreError(f"{where}: genes without an id, or with the id of another. Build the store again.")
