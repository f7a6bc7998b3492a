"""Another store as an input (floor 4): its cells by the blocks that every source gives, genes by id, obs carried over.

Lies here and not with the other sources, which know no stores; `cellmill.sources` is told of it by `register_format`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import CorruptStoreError, FormatError, InputError, StoreError
from cellmill.events import emit
from cellmill.genes import Vocabulary
from cellmill.sources import GeneColumns, Limits, MatrixInfo, Source, register_format
from cellmill.sources.base import MatrixReader
from cellmill.sources.rows import Rows, split_rows
from cellmill.storage import hash_file
from cellmill.store import FileEntry, Store, open_store
from cellmill.store.manifest import MANIFEST_NAME
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS

__all__ = ["KIND", "StoreSource", "hint_at_merge", "is_store", "require_distinct_datasets", "require_other_store"]

KIND = "store"
COUNTS = "counts"
# facts over all genes of the file that a cell came from: its store keeps some of them only, and cannot tell again
WHOLE_CELL = ("total_counts", "n_genes_detected", "mito_share", "ribo_share", "top_gene_share")


def is_store(path: Path) -> bool:
    """Whether a folder has the manifest of a store."""
    try:
        with (path / MANIFEST_NAME).open("rb") as file:
            return b'"manifest_xxh3"' in file.read(64)
    except OSError:
        return False


@contextmanager
def _as_input(path: Path) -> Iterator[None]:
    """Turn damage to a store that is read as an input into FormatError."""
    try:
        yield
    except StoreError as error:
        raise FormatError(f"{path}, a store that is an input, is damaged: {error}") from error


class StoreSource(Source):
    """The cells of a store; its only matrix is "counts".

    Parameters
    ----------
    path : Path
        The folder.
    limits : Limits, optional

    Raises
    ------
    NotFoundError
        There is no store.
    FormatError
        It is damaged. While cells are read, each shard is checked against its checksums first.

    Notes
    -----
    Genes are those that at least one source of the store measured. Cells keep the data set and the uid that they have
    there, and the facts of whole cells, which were told over all genes of their files. Fingerprints and what hangs on
    the genes that are stored are made anew.
    """

    kind = KIND

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        with _as_input(path):
            self.store = open_store(path, checksums=True)
            genes = self.store.genes
        self.genes = GeneColumns(list(self.store.gene_ids), {"symbol": genes.column("symbol").to_pylist()})
        self.n_cells = self.store.n_cells
        self._found: dict[str, MatrixReader] = {COUNTS: _StoreReader(self.store, self.limits)}
        self.note(
            f"cells of the store {path.name} (digest {self.store.digest}) keep their data sets, uids and facts of "
            "whole cells; which genes each of its sources measured is told in its own reports"
        )

    @property
    def name(self) -> str:
        """Name of the input: that of the folder, without .mill; its cells keep names of data sets of their own."""
        return self.path.resolve().name.removesuffix(".mill")

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _read_obs(self) -> pa.Table:
        own = [name for name in self.store.obs.columns if name not in STANDARD_COLUMNS and name not in FACT_COLUMNS]
        with _as_input(self.path):
            for shard in self.store.manifest.shards:
                self._prove(shard.obs)
            return self.store.obs.to_arrow(["cell", *own]).combine_chunks()

    def _prove(self, entry: FileEntry) -> None:
        """Check a file against its hash: what Parquet decodes without a complaint may yet be another label."""
        path = self.store.path / entry.path
        try:
            found = hash_file(path)
        except OSError as error:
            raise CorruptStoreError(f"{path}: cannot be read ({error.strerror or error})") from None
        if found != entry.xxh3:
            raise CorruptStoreError(f"{path}: its checksum is not the manifest's; the bytes have changed")

    def origins(self) -> pa.Table:
        """Return the data set and uid that each cell has in the store, and what is known there of the whole cell."""
        known = self.store.obs.columns
        with _as_input(self.path):
            return self.store.obs.to_arrow(["dataset", "uid", *(name for name in WHOLE_CELL if name in known)])


class _StoreReader:
    """Reads the cells of a store in steps that always begin at the same rows."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self.info = MatrixInfo(COUNTS, "csr", "uint32", store.n_cells, store.n_genes, store.nnz)

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`."""
        limit = self._limits.max_block_entries
        per_cell = max(1, self._store.nnz // max(1, self._store.n_cells))
        step = max(1, min(block_cells, limit // per_cell))
        for first in range(start - start % step, stop, step):
            begin, end = max(first, start), min(first + step, stop)
            with _as_input(self._store.path):
                got = self._store.gather(np.arange(begin, end, dtype=np.int64))
            for a, b in split_rows(got.indptr, block_cells=block_cells, max_entries=limit):
                own = slice(int(got.indptr[a]), int(got.indptr[b]))
                yield Rows(begin + a, got.indptr[a : b + 1] - got.indptr[a], got.indices[own], got.values[own])

    def close(self) -> None:
        """Nothing is held that must be given back."""


register_format(KIND, StoreSource, recognise=lambda path: "the folder is a cellmill store" if is_store(path) else None)


def _datasets(source: Source) -> list[str]:
    """Return the names of the data sets that an input settles itself."""
    origins = source.origins() if source.kind == KIND else None
    names: list[str] = [] if origins is None else pc.unique(origins.column("dataset").cast(pa.string())).to_pylist()
    return names


def require_distinct_datasets(sources: Sequence[Source], names: Sequence[str], taken: Sequence[str] = ()) -> None:
    """Check that no data set is in two inputs, or in the store that is added to, where stores are among the inputs.

    Raises
    ------
    InputError
        Naming it and the inputs: its cells would be stored twice, with equal uids.
    """
    if not any(source.kind == KIND for source in sources):
        return
    held = [_datasets(source) or [name] for source, name in zip(sources, names, strict=True)]
    uses = Counter([*taken, *(name for listed in held for name in listed)])
    for name, n in uses.items():
        if n > 1:
            where = [str(source.path) for source, listed in zip(sources, held, strict=True) if name in listed]
            there = "the store that is added to and " if name in taken else ""
            raise InputError(
                f"the data set {name!r} is in {there}{' and '.join(where)}: its cells would be stored twice under one "
                "uid. If this is the same data, leave one of them out; if it is other data, rename the file that is "
                "new (data sets are named after their files)."
            )


def require_other_store(target: Path, paths: Sequence[Path]) -> None:
    """Check that a store is not read while it is written.

    Raises
    ------
    InputError
        When the target is one of the inputs.
    """
    if any(path.resolve() == target.resolve() for path in paths):
        raise InputError(
            f"{target}: is to be written and is one of the inputs, which stay as they are. Choose another name for the "
            "new store."
        )


def hint_at_merge(sources: Sequence[Source], vocabulary: Vocabulary) -> None:
    """Tell of the way that copies bytes, where stores of the same vocabulary are built into one again."""
    stores = [source.path for source in sources if source.kind == KIND]
    same = [str(path) for path in stores if open_store(path).vocabulary_hash == vocabulary.hash]
    if not same:
        return
    others = "" if len(same) == len(sources) else f", and cellmill append {same[0]} INPUT... adds inputs to it"
    emit(
        "planning",
        message=f"{', '.join(same)}: of this vocabulary already. Every cell is read and written anew here; cellmill "
        f"merge OUT.mill {' '.join(same)} copies shards as they are{others}.",
    )
