"""Genes that sources did not measure, among genes that were chosen (floor 4).

Statistics of a store are of its counts. A gene that a source did not measure has none in that source's cells, which
looks as a gene does that was measured and not found: it counts as zero, and a gene of some sources varies by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellmill.errors import CorruptStoreError, StoreError
from cellmill.statistics.groups import rows_by_label

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["counts_unmeasured_as_zero", "unmeasured_genes"]


def unmeasured_genes(store: Store, gene_ids: Sequence[str], *, where: str | None = None) -> dict[str, int]:
    """Return how many of `gene_ids` each source did not measure, sources without any such gene left out.

    Parameters
    ----------
    where : str, optional
        Look at the sources of these cells alone.

    Raises
    ------
    CorruptStoreError
        When a report is damaged.

    Notes
    -----
    Sources that were added before it was kept which genes they measured are left out. Reads a report for each source.
    """
    position = {gene_id: i for i, gene_id in enumerate(store.gene_ids)}
    chosen = np.array([position[gene_id] for gene_id in gene_ids], dtype=np.int64)
    names = store.manifest.sources.texts("name")
    found = {}
    for number in range(len(names)) if where is None else np.unique(store.source_of(store.select(where))).tolist():
        try:
            n = int(np.count_nonzero(~store.measured(names[number])[chosen]))
        except CorruptStoreError:
            raise
        except StoreError:  # nobody knows
            continue
        if n:
            found[names[number]] = n
    return found


def counts_unmeasured_as_zero(store: Store, *, batch: str | None, where: str | None = None) -> bool:
    """Return whether cells of several sources are scored together: then what one did not measure counts as zero in it.

    Within a batch of one source, a gene that this source did not measure has no score, whatever the flavor.
    """
    rows = np.arange(store.n_cells) if where is None else store.select(where)
    groups = [rows] if batch is None else [own for _, own in rows_by_label(store, rows, batch)]
    return any(len(np.unique(store.source_of(own))) > 1 for own in groups)
