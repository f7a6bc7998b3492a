"""The store that a run adds to (floor 4): what of it is settled and cannot be chosen anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellmill.errors import GeneMatchError, InputError
from cellmill.genes import GeneTable, Vocabulary, recognise_species
from cellmill.store import Manifest, Store
from cellmill.store.merge_types import typed_column
from cellmill.store.obs import STANDARD_COLUMNS
from cellmill.store.obs_clash import TypedColumn

__all__ = ["Base", "table_for"]

_UNION = "union"


@dataclass(frozen=True, eq=False)
class Base:
    """A store to add to.

    Attributes
    ----------
    order : int64, shape (n_genes,)
        Vocabulary positions of its genes, in storage order.
    detected : int64, shape (n_genes,)
        Cells in which each of them is detected.
    head : bytes or None
        Model of its head genes.
    datasets : tuple of str
        Data sets of its cells: names of its sources, or those that a store kept which was one of them.
    """

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary
    order: npt.NDArray[np.int64]
    detected: npt.NDArray[np.int64]
    head: bytes | None
    datasets: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: Store) -> Base:
        """Return what an open store settles."""
        vocabulary = store.vocabulary
        position = {gene_id: i for i, gene_id in enumerate(vocabulary.ids)}
        order = np.array([position[gene_id] for gene_id in store.gene_ids], dtype=np.int64)
        # a rate is the quotient of two whole numbers: rounding gives the first of them back
        rate = store.genes.column("detection_rate").to_numpy()
        detected = np.rint(rate * store.n_cells).astype(np.int64)
        datasets = _datasets(store)
        return cls(store.path, store.manifest, vocabulary, order, detected, store.head_model, datasets)

    @property
    def table(self) -> GeneTable | None:
        """The table that resolves symbols, as when the store was built; None when ids are matched as they are."""
        name = self.manifest.vocabulary_name
        if name == _UNION:
            return None
        return GeneTable.load(name) if name in ("human", "mouse") else table_for(self.vocabulary.ids)

    @property
    def obs_columns(self) -> tuple[tuple[str, str, str], ...]:
        """Its columns of obs beyond the standard ones, as an input's (name, name, type)."""
        return tuple((name, name, kind) for name, kind in self.manifest.obs_schema[len(STANDARD_COLUMNS) :])

    def typed_columns(self) -> dict[str, TypedColumn]:
        """Return these columns by name, their values read when they are asked for."""
        store = Store(self.path, self.manifest)
        return {name: typed_column(store, name, kind) for name, _, kind in self.obs_columns}

    def require_new(self, name: str, path: Path) -> str:
        """Return the name of a dataset, which the store must not have yet.

        Raises
        ------
        InputError
            When it has.
        """
        for source in self.manifest.sources:
            if source.name == name:
                raise InputError(
                    f"{path}: the store {self.path} has a dataset {name!r} already ({source.n_cells} cells, from "
                    f"{source.uri}). If this is the same data, nothing is left to add: leave it out, or pass "
                    "--skip-bad (in Python: skip_bad=True). If it is other data, give the dataset another name "
                    "(--dataset-name NAME): datasets are named after their files, and the uids of cells after both."
                )
        if name in self.datasets:
            raise InputError(
                f"{path}: the store {self.path} has cells of a dataset {name!r} already, from a store that was an "
                "input of it. If this is the same data, leave it out; if it is other data, rename the file: datasets "
                "are named after their files, and the uids of cells after both."
            )
        return name

    def require_known_genes(self, ids: Sequence[str], where: str) -> None:
        """Check the genes of an input against a union vocabulary, which cannot grow.

        Raises
        ------
        GeneMatchError
            When there are ids that the store does not know.
        """
        if self.manifest.vocabulary_name != _UNION:
            return
        known = set(self.vocabulary.ids)
        unknown = [gene_id for gene_id in ids if gene_id not in known]
        if unknown:
            raise GeneMatchError(
                f"{where}: {len(unknown)} of {len(ids)} gene ids are new to the store {self.path} (for example "
                f"{', '.join(map(repr, unknown[:5]))}). Its vocabulary is the union of the ids of the inputs that it "
                "was built from, and is frozen. Build a new store from all inputs together (cellmill build NEW.mill "
                "INPUT... --vocabulary union), or with the vocabulary human or mouse, to which inputs can be added."
            )


def _datasets(store: Store) -> tuple[str, ...]:
    sources = store.manifest.sources
    names = {source.name for source in sources}
    if any(source.kind == "store" for source in sources):
        names |= set(store.query("SELECT DISTINCT dataset FROM obs").column("dataset").cast("string").to_pylist())
    return tuple(sorted(names))


def table_for(ids: Sequence[str]) -> GeneTable | None:
    """Return the table that resolves the symbols of a vocabulary's species, None when it is of none that is known."""
    species = recognise_species(ids, None)
    return GeneTable.load(species) if species else None
