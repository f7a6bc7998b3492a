"""What a user should know of an input that is taken all the same (floor 4, pure): judged by a few blocks of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError
from cellmill.ingest.candidates import Candidate
from cellmill.ingest.facts import MITOCHONDRIAL
from cellmill.ingest.filters import CellFilters
from cellmill.ingest.matrix_choice import look_raw, windows_of
from cellmill.ingest.signs import empty_droplets_warning, signs_of_processing, sum_warning, sums_among_genes
from cellmill.sources import MatrixInfo
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS
from cellmill.store.obs_query import columns_of_condition
from cellmill.units import count_text

__all__ = ["cautions_of"]


def cautions_of(
    candidate: Candidate,
    classes: npt.NDArray[np.uint8],
    columns: Sequence[str],
    filters: CellFilters,
    *,
    matched: npt.NDArray[np.bool_],
) -> tuple[str, ...]:
    """Return warnings about an input: signs of processing, genes left behind, no cells, empty droplets, filters that
    cannot work on it.

    Parameters
    ----------
    classes
        `classify_genes` of the input.
    columns
        Names of its own columns of obs, in the store.
    matched : bool, shape (n_source_genes,)
        Which of its genes are in the vocabulary.
    """
    windows = candidate.windows
    found = list(signs_of_processing(windows))
    genes = candidate.source.genes_of(candidate.matrix).ids
    found += [sum_warning(genes[at]) for at in sums_among_genes(windows, matched=matched)[:3]]
    info = next(one for one in candidate.source.matrices() if one.name == candidate.matrix)
    if not info.n_cells:
        found.append("there is no cell in it: it adds nothing to the store but the genes that it measured")
    if candidate.matrix == "X" and (fuller := _fuller_raw(candidate, info)):
        found.append(fuller)
    droplets = empty_droplets_warning(windows, n_cells=info.n_cells, n_genes=info.n_genes)
    if droplets and not (filters.min_counts or filters.min_genes):
        found.append(droplets)
    if filters.max_mito is not None and not (classes & MITOCHONDRIAL).any():
        found.append("no mitochondrial gene was measured, so that --max-mito removes no cell")
    if filters.where is not None:
        known = {name.casefold() for name in (*columns, *STANDARD_COLUMNS, *FACT_COLUMNS)}
        missing = [name for name in columns_of_condition(filters.where) if name.casefold() not in known]
        if missing:
            found.append(
                f"no column {', '.join(map(repr, missing))} of obs, named by --where: it is null for its cells"
            )
    return tuple(found)


def _fuller_raw(candidate: Candidate, taken: MatrixInfo) -> str | None:
    """A warning where X has but some of the genes, as after a choice of variable ones, and raw has counts of more."""
    source = candidate.source
    raw = next((one for one in source.matrices() if one.name == "raw"), None)
    if raw is None or raw.n_genes <= taken.n_genes or not taken.n_cells:
        return None
    try:
        counts = look_raw(windows_of(source, "raw", allow_rounding=0.0))
    except InputError:
        return None  # what is damaged is no advice
    finally:
        source.release()
    if not counts:
        return None
    return (
        f"X, which is taken, has {count_text(taken.n_genes)} genes, and raw has {count_text(raw.n_genes)}, with raw "
        "counts as far as looked at: to take all of them, pass --counts raw (in Python: counts='raw')"
    )
