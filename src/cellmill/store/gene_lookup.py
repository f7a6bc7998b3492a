"""Genes of a store by their ids (floor 3, pure): positions, and what a name that is no id may have meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import QueryError

__all__ = ["checked_gene_ids", "meant_by_symbols", "positions_of_genes"]


def checked_gene_ids(genes: Sequence[str]) -> Sequence[str]:
    """Return gene ids as they are.

    Raises
    ------
    QueryError
        For a single text, whose letters would be taken as ids, and for what is no text.
    """
    if isinstance(genes, str):
        raise QueryError(f"genes must be a list of gene ids, found the text {genes!r}. For one gene give [{genes!r}]")
    if other := [gene for gene in genes if not isinstance(gene, str)]:
        raise QueryError(f"genes must be gene ids, found {other[0]!r}. For genes by position: store.gene_ids[position]")
    return genes


def positions_of_genes(table: pa.Table, gene_ids: Sequence[str], *, where: str) -> npt.NDArray[np.int64]:
    """Return the row of each gene in `table` (columns gene_id and symbol), int64, shape (len(gene_ids),).

    Raises
    ------
    QueryError
        For genes that are not there, with examples, and with their ids where they were named by symbols.
    """
    wanted = pa.array(list(checked_gene_ids(gene_ids)), pa.string())
    found = pc.index_in(wanted, value_set=table.column("gene_id"))
    positions: npt.NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = wanted.filter(pa.array(positions < 0))
    if len(missing) == 0:
        return positions
    known = table.column("gene_id").slice(0, 3).to_pylist()
    raise QueryError(
        f"{where}: {len(missing)} of {len(positions)} genes are not in this store, for example "
        f"{', '.join(map(repr, missing.slice(0, 5).to_pylist()))}. Its ids look like {', '.join(known)}; store.genes "
        f"lists them all.{meant_by_symbols(table, missing)}"
    )


def meant_by_symbols(table: pa.Table, names: pa.Array) -> str:
    """Return a sentence with the ids of names that are symbols in `table`, for an error; empty where none is."""
    at = pc.index_in(names, value_set=table.column("symbol"))
    named, ids = names.filter(at.is_valid()), table.column("gene_id").take(at.drop_null())
    if len(named) == 0:
        return ""
    examples = [f"{name} is {gene_id}" for name, gene_id in zip(named.to_pylist(), ids.to_pylist(), strict=True)]
    return f" {len(named)} of them are symbols here: {', '.join(examples[:3])}. Give the ids."
