"""Labels and numbers of all cells, a shard of obs at a time (floor 7).

Knows obs; memory is that of one shard's columns, of the labels there are, and of two tables of counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.card.content import Composition, Spread
from cellmill.events import emit

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["label_columns", "number_columns", "tally_cells"]

# title -> names that files give the column, compared without case, spaces and underscores; the first one there is taken
_LABELS: dict[str, tuple[str, ...]] = {
    "tissue": ("tissue", "tissuegeneral", "organ", "tissuetype"),
    "assay": ("assay", "technology", "platform", "libraryprep", "chemistry"),
    "donor": ("donorid", "donor", "individual", "patient", "patientid", "subject", "subjectid", "sampleid", "sample"),
    "cell type": ("celltype", "celltypes", "celltypeannotation", "cellontologyclass", "annotation", "subpop"),
    "disease": ("disease", "diagnosis", "condition"),
    "sex": ("sex", "gender"),
    "development stage": ("developmentstage", "age", "stage"),
    "suspension": ("suspensiontype",),
    "perturbation": ("perturbation", "drug", "treatment", "stim", "guide"),
    "batch": ("batch",),
    "source": ("dataset",),
}
# columns that the common schema (CELLxGENE's, and this store's own) defines, so that its word for them is true
_OF_SCHEMA = {
    "donor_id": "donor",
    "cell_type": "cell type",
    "development_stage": "development stage",
    "suspension_type": "suspension",
    "dataset": "source",
}
_COUNTS = {"total_counts": "counts (UMIs) per cell", "n_genes_detected": "genes detected per cell"}
_SHARES = {
    "kept_share": "share of a cell's counts that the store holds",
    "mito_share": "share of mitochondrial counts",
    "ribo_share": "share of ribosomal counts",
    "top_gene_share": "share of the gene with most counts",
}
_LARGEST_EXACT = 1 << 20  # beyond it counts are told apart by their bar only
_BARS_PER_DECADE = 12
_SHARE_STEPS = 1000
_LABELS_KEPT = 1000


def label_columns(schema: dict[str, str]) -> dict[str, str]:
    """Return the columns of obs that describe cells, as {title: column}.

    Examples
    --------
    >>> label_columns({"Celltype": "category", "Donor ID": "string", "pct": "float32"})
    {'donor': 'Donor ID', 'cell type': 'Celltype'}
    """
    by_key = {
        "".join(ch for ch in name.lower() if ch.isalnum()): name
        for name, kind in reversed(schema.items())
        if not kind.startswith("float")
    }
    found = {title: next((by_key[key] for key in keys if key in by_key), "") for title, keys in _LABELS.items()}
    return {title: column for title, column in found.items() if column}


def number_columns(schema: dict[str, str]) -> dict[str, str]:
    """Return the columns of obs that measure cells, as {column: title}."""
    return {column: title for column, title in {**_COUNTS, **_SHARES}.items() if column in schema}


def tally_cells(store: Store) -> tuple[tuple[Composition, ...], tuple[Spread, ...]]:
    """Return composition and spread of all cells, from one pass over the files of obs."""
    labels, numbers = label_columns(store.obs.schema), number_columns(store.obs.schema)
    counters: dict[str, Counter[str | None]] = {title: Counter() for title in labels}
    tallies = {name: _CountTally() if name in _COUNTS else _ShareTally() for name in numbers}
    for table in _shards(store, [*dict.fromkeys([*labels.values(), *numbers])]):
        for title, column in labels.items():
            counters[title].update(_labels_of(table.column(column)))
        for column, tally in tallies.items():
            tally.add(table.column(column))
    compositions = tuple(_composition(labels[title], counter) for title, counter in counters.items())
    return compositions, tuple(tallies[name].spread(name, title) for name, title in numbers.items())


def _shards(store: Store, columns: Sequence[str]) -> Iterator[pa.Table]:
    first = 0
    for n in store.manifest.shards.n_cells.tolist():
        yield store.obs.to_arrow(columns, np.arange(first, first + n, dtype=np.int64))
        first += n
        emit("cells", done=first, total=store.n_cells, unit="cells")


def _labels_of(column: pa.ChunkedArray) -> dict[str | None, int]:
    counted = pc.value_counts(column)
    values = counted.field("values")
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    pairs = zip(values.to_pylist(), counted.field("counts").to_pylist(), strict=True)
    return {None if value is None else str(value): n for value, n in pairs}


def _composition(column: str, counter: Counter[str | None]) -> Composition:
    n_unlabelled = counter.pop(None, 0) + counter.pop("", 0)
    ordered = sorted(
        ((label, n) for label, n in counter.items() if label is not None), key=lambda one: (-one[1], one[0])
    )
    return Composition(column, _OF_SCHEMA.get(column, column), len(ordered), n_unlabelled, dict(ordered[:_LABELS_KEPT]))


class _CountTally:
    """Whole numbers, each counted, so that median and bars are exact; those above 2^20 fall into one."""

    def __init__(self) -> None:
        self._n_of: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._largest = 0

    def add(self, column: pa.ChunkedArray) -> None:
        values = column.to_numpy().astype(np.int64)
        if not len(values):
            return
        self._largest = max(self._largest, int(values.max()))
        counted = np.bincount(np.minimum(values, _LARGEST_EXACT))
        if len(counted) > len(self._n_of):
            self._n_of = np.pad(self._n_of, (0, len(counted) - len(self._n_of)))
        self._n_of[: len(counted)] += counted

    def spread(self, column: str, title: str) -> Spread:
        present = np.flatnonzero(self._n_of)
        if not len(present):
            return Spread(column, title, (), (), 0, 0, None, None, None, is_log=True)
        low = int(np.floor(_BARS_PER_DECADE * np.log10(max(1, present[present > 0].min(initial=self._largest)))))
        high = int(np.floor(_BARS_PER_DECADE * np.log10(max(1, self._largest)))) + 1
        edges = 10.0 ** (np.arange(low, high + 1) / _BARS_PER_DECADE)
        place = np.searchsorted(edges, present[present > 0], side="right") - 1
        bars = np.bincount(place, weights=self._n_of[present[present > 0]], minlength=len(edges) - 1)
        middle = int(np.searchsorted(np.cumsum(self._n_of), (self._n_of.sum() + 1) // 2))
        return Spread(
            column,
            title,
            tuple(edges.tolist()),
            tuple(int(n) for n in bars[: len(edges) - 1]),
            int(self._n_of[0]),
            0,
            float(present[0]),
            float(middle),
            float(self._largest),
            is_log=True,
        )


class _ShareTally:
    """Numbers from 0 to 1, counted in a thousand steps."""

    def __init__(self) -> None:
        self._n_of: npt.NDArray[np.int64] = np.zeros(_SHARE_STEPS + 1, dtype=np.int64)
        self._n_missing = 0
        self._smallest, self._largest = np.inf, -np.inf

    def add(self, column: pa.ChunkedArray) -> None:
        values = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        known = values[~np.isnan(values)]
        self._n_missing += len(values) - len(known)
        if len(known):
            self._smallest, self._largest = min(self._smallest, known.min()), max(self._largest, known.max())
            steps = np.floor(np.clip(known, 0.0, 1.0) * _SHARE_STEPS).astype(np.int64)
            self._n_of += np.bincount(steps, minlength=_SHARE_STEPS + 1)

    def spread(self, column: str, title: str) -> Spread:
        n = int(self._n_of.sum())
        if not n:
            return Spread(column, title, (), (), 0, self._n_missing, None, None, None, is_log=False)
        middle = int(np.searchsorted(np.cumsum(self._n_of), (n + 1) // 2)) / _SHARE_STEPS
        steps = self._n_of.copy()
        steps[-2] += steps[-1]  # 1 itself belongs to the last bar
        bars = steps[:-1].reshape(50, -1).sum(axis=1)
        return Spread(
            column,
            title,
            tuple(np.linspace(0, 1, 51).tolist()),
            tuple(bars.tolist()),
            0,
            self._n_missing,
            float(self._smallest),
            middle,
            float(self._largest),
            is_log=False,
        )
