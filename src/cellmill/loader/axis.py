"""One gene axis over several stores (floor 6, loader). Knows gene ids and positions; reads no counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill.errors import ConfigError, QueryError, nearest
from cellmill.store import Store
from cellmill.store.columns import numbers_of
from cellmill.store.gene_lookup import meant_by_symbols

__all__ = ["GeneAxis", "Missing", "align_genes", "token_numbers"]

I32 = npt.NDArray[np.int32]
Missing = Literal["refuse", "zero"]


@dataclass(frozen=True)
class GeneAxis:
    """The columns of a batch.

    Attributes
    ----------
    gene_ids : tuple of str
        Id of each column.
    tokens : int64[n_columns]
        Vocabulary token of each column; -1 for a gene that no store has.
    panels : tuple of int32[n_genes of the store] or None
        For each store, the column of each of its genes, -1 to drop; None where its genes are the columns as they are.
    missing : tuple of int
        For each store, the columns that it has no gene for: zeros in its cells.
    """

    gene_ids: tuple[str, ...]
    tokens: npt.NDArray[np.int64]
    panels: tuple[I32 | None, ...]
    missing: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.gene_ids)


def align_genes(stores: Sequence[Store], genes: Sequence[str] | None, *, missing: Missing = "refuse") -> GeneAxis:
    """Return the axis: the panel that is asked for, or the genes of the first store and then what others add.

    Parameters
    ----------
    missing
        What to do with a gene of the panel that no store has: "refuse", or "zero" for a column of zeros.

    Raises
    ------
    ConfigError
        When a panel is empty or names a gene twice, and for another `missing`.
    QueryError
        For genes that no store has, with examples, and with their ids where they were named by symbols.
    """
    if missing not in get_args(Missing):
        known = get_args(Missing)
        raise ConfigError(
            f"missing_genes must be one of {', '.join(known)}, found {missing!r}.{nearest(str(missing), known)}"
        )
    own = [tuple(store.genes.column("gene_id").to_pylist()) for store in stores]
    wanted = tuple(dict.fromkeys(gene for ids in own for gene in ids)) if genes is None else tuple(genes)
    column = {gene: i for i, gene in enumerate(wanted)}
    if len(column) != len(wanted) or not wanted:
        twice = next((gene for gene in wanted if wanted.count(gene) > 1), None)
        raise ConfigError("the panel of genes is empty" if twice is None else f"the panel names {twice!r} twice")
    tokens = np.full(len(wanted), -1, dtype=np.int64)
    panels: list[I32 | None] = []
    lacking: list[int] = []
    present = np.zeros(len(wanted), dtype=bool)
    for store, ids in zip(reversed(stores), reversed(own), strict=True):  # the first store's tokens are kept
        panel = np.array([column.get(gene, -1) for gene in ids], dtype=np.int32)
        kept = panel >= 0
        tokens[panel[kept]] = token_numbers(store)[kept]
        present[panel[kept]] = True
        panels.insert(0, None if ids == wanted else panel)
        lacking.insert(0, len(wanted) - int(kept.sum()))
    if not present.all() and missing == "refuse":
        raise _absent([gene for gene, here in zip(wanted, present.tolist(), strict=True) if not here], stores)
    return GeneAxis(wanted, tokens, tuple(panels), tuple(lacking))


def token_numbers(store: Store) -> npt.NDArray[np.int64]:
    """Return the token of each gene of a store, int64[n_genes]."""
    found: npt.NDArray[np.int64] = numbers_of(store.genes.column("token"))
    return found


def _absent(absent: Sequence[str], stores: Sequence[Store]) -> QueryError:
    examples = ", ".join(map(repr, absent[:5]))
    known = stores[0].genes.column("gene_id").to_pylist()
    said = (meant_by_symbols(store.genes, pa.array(absent, pa.string())) for store in stores)
    symbols = next((told for told in said if told), "")
    near = "" if symbols else nearest(absent[0], known)  # of a symbol, no id is near but by chance
    return QueryError(
        f"{len(absent)} genes of the panel are in none of the stores, for example {examples}."
        f"{near} Their ids look like {', '.join(known[:3])}; store.genes lists them all.{symbols}"
    )
