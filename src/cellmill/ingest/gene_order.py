"""The order of a new store's genes, and which are coded by a model (floor 4): from the windows read for the plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellmill.genes import Alignment
from cellmill.ingest.candidates import Candidate
from cellmill.ingest.head import plan_head

__all__ = ["head_model", "storage_order"]


def head_model(
    aligned: Sequence[tuple[Candidate, Alignment]], order: npt.NDArray[np.int64], *, n_vocabulary: int
) -> bytes | None:
    """Return the model of the head genes of inputs and their alignments, None where blocks are better."""
    storage_of = np.full(n_vocabulary + 1, -1, dtype=np.int64)
    storage_of[order] = np.arange(len(order))
    # of many inputs those whose windows are kept: a model needs no more cells than these
    windows = ((window, storage_of[a.target]) for candidate, a in aligned for window in candidate.kept or ())
    n_cells = sum(candidate.source.n_cells for candidate, _ in aligned)
    return plan_head(windows, n_genes=len(order), n_cells=n_cells)


def storage_order(
    aligned: Sequence[tuple[Candidate, npt.NDArray[np.int64]]], *, n_vocabulary: int
) -> npt.NDArray[np.int64]:
    """Vocabulary positions of the genes that any source measured, those detected most often in the windows first."""
    detected = np.zeros(n_vocabulary)
    measured = np.zeros(n_vocabulary, dtype=bool)
    for candidate, target in aligned:
        measured[target[target >= 0]] = True
        windows = candidate.windows
        sampled = max(1, sum(len(window.indptr) - 1 for window in windows))
        weight = candidate.source.n_cells / sampled
        for window in windows:
            positions = target[window.indices[window.data != 0]]
            detected += weight * np.bincount(positions[positions >= 0], minlength=n_vocabulary)
    genes = np.flatnonzero(measured)
    return genes[np.argsort(-detected[genes], kind="stable")].astype(np.int64)
