"""Which genes the sources of a plan measured (floor 4, mixture): what a source did not measure is no zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellmill.errors import StoreError
from cellmill.mixture.cells import Cells, Segment
from cellmill.store import Store

__all__ = ["coverage_warnings", "gene_coverage"]

WELL_COVERED = 0.9
_SOURCES_NAMED = 3


def gene_coverage(parts: Sequence[Cells], stores: Sequence[Store]) -> tuple[tuple[dict[str, float], ...], float | None]:
    """Return for each component the share of all genes that each of its sources measured, and that which all did.

    The genes are those of all stores of the plan, each once. A source of a store that was written before this was kept
    is left out; the second number is None where nothing is known.
    """
    genes = {gene: i for i, gene in enumerate(dict.fromkeys(g for store in stores for g in store.gene_ids))}
    common = np.ones(len(genes), dtype=bool)
    known: dict[tuple[int, int], npt.NDArray[np.bool_] | None] = {}
    found = []
    for cells in parts:
        of_part: dict[str, float] = {}
        for segment in cells.segments:
            store = stores[segment.store]
            place = np.array([genes[gene] for gene in store.gene_ids], dtype=np.int64)
            names = store.manifest.sources.texts("name")
            for source in np.unique(store.source_of(_one_of_each_shard(store, segment))).tolist():
                if (segment.store, source) not in known:
                    known[segment.store, source] = _measured(store, names[source], place, len(genes))
                mask = known[segment.store, source]
                if mask is not None:
                    of_part[names[source]] = float(mask.mean())
                    common &= mask
        found.append(of_part)
    return tuple(found), float(common.mean()) if any(found) and len(genes) else None


def _one_of_each_shard(store: Store, segment: Segment) -> npt.NDArray[np.int64]:
    """Rows of a segment that tell its sources: a shard is of one source, so a run of cells need not be listed."""
    if not isinstance(segment.rows, range):
        return segment.rows
    firsts = np.cumsum(store.manifest.shards.n_cells)
    within = firsts[(firsts > segment.rows.start) & (firsts < segment.rows.stop)]
    return np.concatenate([[segment.rows.start], within]).astype(np.int64)


def _measured(store: Store, source: str, place: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.bool_] | None:
    try:
        own = store.measured(source)
    except StoreError:
        return None
    mask = np.zeros(n, dtype=bool)
    mask[place[own]] = True
    return mask


def coverage_warnings(coverage: Sequence[dict[str, float]], common: float | None) -> list[str]:
    """Say when sources share few of the genes: zeros of genes that were not measured are learnt as zeros."""
    if common is None or common >= WELL_COVERED:
        return []
    shares = {name: share for part in coverage for name, share in part.items()}
    least = sorted(shares, key=lambda name: (shares[name], name))[:_SOURCES_NAMED]
    named = ", ".join(f"{name} {int(100 * shares[name])} %" for name in least)
    said = f"all sources measured {int(100 * common)} % of the genes (fewest: {named}); "
    return [said + "what a source did not measure is no zero: train on a panel of genes that all of them measured"]
