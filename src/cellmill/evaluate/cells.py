"""Cells to evaluate on, read in batches over the genes of a model (floor 7).

Knows stores, row ids and gene panels; must not know models, metrics or reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from cellmill.errors import ConfigError, InputError, NotFoundError, nearest
from cellmill.mixture import Mixture, Plan
from cellmill.store import Store, open_store

__all__ = ["EvalSet", "PanelReader", "ResolvedSet", "read_labels", "resolve_sets", "training_cells"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Cells of one store on which models are judged.

    Attributes
    ----------
    name : str
        Sets with the same name, of several stores, are one set.
    store : path or Store
    where : str, optional
        SQL condition over obs.
    rows : int64 (n,), optional
        Row ids; wins over `where`. Neither: all cells.
    cell_type : str or None
        Column of obs by which results are told apart.
    donor : str or None
        Column of obs whose values are drawn again for intervals; left aside when the store does not have it.
    """

    name: str
    store: Store | str | Path
    where: str | None = None
    rows: I64 | None = None
    cell_type: str | None = "cell_type"
    donor: str | None = "donor_id"

    @classmethod
    def from_plan(
        cls, name: str, plan: Plan | Mixture, *, cell_type: str | None = "cell_type", donor: str | None = "donor_id"
    ) -> list[EvalSet]:
        """Return the cells of a plan, each once: one set for each of its stores, all of the same name."""
        decided = plan.plan() if isinstance(plan, Mixture) else plan
        return [
            cls(name, store, rows=decided.rows(index), cell_type=cell_type, donor=donor)
            for index, store in enumerate(decided.stores)
        ]


@dataclass(frozen=True, eq=False)
class ResolvedSet:
    """An evaluation set with its cells found.

    Attributes
    ----------
    name : str
    parts : tuple of (EvalSet, Store, int64 row ids)
    """

    name: str
    parts: tuple[tuple[EvalSet, Store, I64], ...]

    @property
    def n_cells(self) -> int:
        """Cells in all parts."""
        return sum(len(rows) for _, _, rows in self.parts)


def resolve_sets(sets: Sequence[EvalSet]) -> list[ResolvedSet]:
    """Return the sets by name, in the order in which names first come, with stores open and rows known.

    Raises
    ------
    ConfigError
        When there is no set, or a cell type column is not in a store.
    InputError
        When a set has no cells.
    """
    if not sets:
        raise ConfigError("no evaluation set was given; name at least one EvalSet(name, store, where=...)")
    parts: dict[str, list[tuple[EvalSet, Store, I64]]] = {}
    for one in sets:
        store = one.store if isinstance(one.store, Store) else open_store(one.store)
        rows = store.select(one.where) if one.rows is None else np.asarray(one.rows, dtype=np.int64)
        columns = store.obs.columns
        if one.cell_type is not None and one.cell_type not in columns:
            raise ConfigError(
                f"evaluation set {one.name!r}: {store.path} has no column {one.cell_type!r} in obs."
                f"{nearest(one.cell_type, columns)} Columns: {', '.join(columns)}. Without labels: cell_type=None."
            )
        parts.setdefault(one.name, []).append((one, store, rows))
    resolved = [ResolvedSet(name, tuple(found)) for name, found in parts.items()]
    for each in resolved:
        if each.n_cells == 0:
            where = " and ".join(repr(one.where) for one, _, _ in each.parts if one.where) or "its rows"
            raise InputError(f"evaluation set {each.name!r} has no cells ({where}); widen it, or change the split")
    return resolved


class PanelReader:
    """Reads cells of one store over the genes of a model; genes that the store does not have are zeros.

    Parameters
    ----------
    store : Store
    genes : sequence of str
        The columns that come out, in this order.

    Raises
    ------
    InputError
        When the store has none of the genes.
    """

    def __init__(self, store: Store, genes: Sequence[str]) -> None:
        known = set(store.gene_ids)
        self.store = store
        self.n_genes = len(genes)
        self._present = [gene for gene in genes if gene in known]
        self._columns = np.flatnonzero([gene in known for gene in genes])
        if not self._present:
            raise InputError(
                f"{store.path} has none of the {len(genes):,} genes of the model; its ids look like "
                f"{', '.join(store.gene_ids[:3])}, the model's like {', '.join(genes[:3])}"
            )

    @property
    def share_present(self) -> float:
        """Share of the genes that the store has."""
        return len(self._present) / self.n_genes

    def dense(self, rows: I64) -> F32:
        """Return raw counts, float32 (len(rows), n_genes)."""
        found: F32 = self.store.read_dense(rows, genes=self._present)
        if len(self._present) == self.n_genes:
            return found
        result = np.zeros((len(rows), self.n_genes), dtype=np.float32)
        result[:, self._columns] = found
        return result

    def batches(self, rows: I64, *, batch_size: int) -> Iterator[sparse.csr_array]:
        """Yield raw counts as CSR (at most batch_size, n_genes), in the order of `rows`."""
        for start in range(0, len(rows), batch_size):
            part = self.store.read(rows[start : start + batch_size], genes=self._present)
            columns = self._columns[part.indices]
            yield sparse.csr_array((part.data, columns, part.indptr), shape=(part.shape[0], self.n_genes))


def read_labels(store: Store, column: str | None, rows: I64) -> list[str]:
    """Return the label of each cell as text; "(none)" for null, and for all cells when there is no column."""
    if column is None:
        return ["(none)"] * len(rows)
    values = store.column(column, rows)
    texts = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    return list(pc.fill_null(texts.cast(pa.string()), "(none)").to_pylist())


def training_cells(run_folder: Path, *, part: str = "train") -> list[tuple[Store, I64]]:
    """Return the cells that a run was trained on (or validated on), each once, by its manifest `cells.parquet`.

    Raises
    ------
    NotFoundError
        When the folder holds no manifest.
    """
    path = run_folder / "cells.parquet"
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; a run folder made by cellmill train holds it")
    table = pq.read_table(path, columns=["part", "store", "row"], filters=[("part", "=", part)])
    stores = table.column("store").cast(pa.string())
    result = []
    for name in sorted(pc.unique(stores).to_pylist()):
        rows = table.filter(pc.equal(stores, name)).column("row").to_numpy()
        result.append((open_store(name), np.unique(rows)))
    return result
