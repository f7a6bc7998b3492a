"""Several stores into one (floor 3): bytes copied where genes stand in one order, cells encoded anew where not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from cellmill import kernel
from cellmill.errors import CorruptStoreError, FrameError, InputError, VocabularyError
from cellmill.events import emit
from cellmill.genes import SPECIES
from cellmill.storage import hash_bytes, hash_file, require_free_bytes
from cellmill.storage.urls import refuse_url
from cellmill.store.copying import copy_file
from cellmill.store.duplicates import KeyFile, mark_duplicates
from cellmill.store.format import FORMAT_VERSION
from cellmill.store.journal import JournalEntry
from cellmill.store.manifest import (
    HEAD_NAME,
    VOCABULARY_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    Shards,
    SourceEntry,
    Sources,
)
from cellmill.store.merge_types import require_one_type
from cellmill.store.obs import write_obs
from cellmill.store.obs_types import STANDARD_COLUMNS, unify_types
from cellmill.store.parquet import damage_named
from cellmill.store.reader import Store, open_store
from cellmill.store.shard import open_shard
from cellmill.store.staging import Staging, check_target, writing_told
from cellmill.store.unchanged import Unchanged
from cellmill.store.writer import ShardWriter, file_entry, own_version, write_genes, write_manifest

__all__ = ["ObsClash", "merge_stores"]

ObsClash = Literal["error", "text"]


def merge_stores(
    out: str | Path,
    stores: Sequence[str | Path | Store],
    *,
    overwrite: bool = False,
    threads: int = 0,
    block_cells: int = 4096,
    duplicates: bool = True,
    obs_clash: ObsClash = "error",
) -> Store:
    """Make one store of the cells of several, in their order, and return it, open.

    The stores must share a vocabulary; they are not changed. The genes of the new one stand in the order of the first,
    those that it lacks after them. Shards of a store whose genes are the first of these, in the same order, are copied
    byte for byte; the cells of others are decoded and encoded in the new order. Row ids of the second store begin
    where those of the first end; uids, fingerprints, obs, sources and reports stay what they are. Interrupted at any
    moment, the same call goes on where it stopped.

    Parameters
    ----------
    out
        Folder of the new store. It appears when it is complete, not before.
    stores
        Paths, or open stores.
    overwrite
        Replace a store that lies at `out`, at the end.
    threads
        Threads of the kernel; 0 for all cores.
    block_cells
        Cells encoded anew at once, at most; fewer where they hold more than four million nonzeros.
    duplicates
        Look for equal cells at the end, among all stores (`store.duplicates`).
    obs_clash
        What becomes of a column that is of types in the stores which are not one without loss, such as numbers in one
        and text in another: "error", or "text", which makes text of all of them.

    Raises
    ------
    VocabularyError
        When the stores are not of one vocabulary.
    InputError
        When a dataset is in more than one of them; when types of a column clash, unless `obs_clash` says otherwise.
    CorruptStoreError
        When the bytes of one are not those that its manifest names.
    StoreExistsError, StoreLockedError, DiskSpaceError
        As in `cellmill.build`.

    Examples
    --------
    >>> store = merge_stores("atlas.mill", ["blood.mill", "gut.mill"])  # doctest: +SKIP
    """
    for one in (out, *stores):
        refuse_url(one.location if isinstance(one, Store) else one, what="merge")
    target = Path(out).resolve() if Path(out).is_symlink() else Path(out)
    check_target(target, overwrite=overwrite)
    for one in stores:
        source = one.path if isinstance(one, Store) else Path(one)
        if source.resolve() == target.resolve():
            raise InputError(
                f"{target}: is to be written and is one of the stores to merge, which stay as they are. Choose another "
                "name for the merged store."
            )
    if obs_clash not in get_args(ObsClash):
        raise InputError(f"obs_clash must be 'error' or 'text', found {obs_clash!r}")
    opened = [store if isinstance(store, Store) else open_store(store) for store in stores]
    if obs_clash == "error":
        require_one_type(opened)
    plan = _plan(opened)
    require_free_bytes(target, plan.needed_bytes, what="the merged store")
    with writing_told(target, plan.needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        with Staging.locked(target) as staging:
            check_target(target, overwrite=overwrite)
            _Merge(plan, staging, threads=threads, block_cells=block_cells, duplicates=duplicates).run()
            staging.publish()
    return open_store(target)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What a merge will do.

    Attributes
    ----------
    gene_ids : tuple of str
        In the storage order of the new store.
    positions : tuple of (int32, shape (n_genes of the store,), or None)
        For each store, the new position of each of its genes; None where that is the old one, and so are frames.
    schema : tuple of (name, type)
    spelling : dict
        Column in lower case -> its name in the new store.
    """

    stores: tuple[Store, ...]
    gene_ids: tuple[str, ...]
    positions: tuple[npt.NDArray[np.int32] | None, ...]
    schema: tuple[tuple[str, str], ...]
    spelling: dict[str, str]

    @cached_property
    def unchanged(self) -> tuple[Unchanged, ...]:
        """A watch over each store: one that is replaced meanwhile must not be read further."""
        return tuple(Unchanged(store.path, store.manifest) for store in self.stores)

    @property
    def n_cells(self) -> int:
        return sum(store.n_cells for store in self.stores)

    @property
    def shards(self) -> list[tuple[int, ShardEntry]]:
        """All shards in their new order, each with the number of its store."""
        return [(i, shard) for i, store in enumerate(self.stores) for shard in store.manifest.shards]

    @property
    def needed_bytes(self) -> int:
        shards = sum(file.bytes for _, shard in self.shards for file in shard.files)
        reports = sum(source.report.bytes for store in self.stores for source in store.manifest.sources)
        return shards + reports + (4 << 20)

    @property
    def key(self) -> str:
        """xxh3-128 of all that decides the new store's bytes."""
        reports = [source.report.xxh3 for store in self.stores for source in store.manifest.sources]
        return hash_bytes(
            json.dumps(["merge", FORMAT_VERSION, [store.digest for store in self.stores], reports]).encode()
        )


def _plan(stores: Sequence[Store]) -> _Plan:
    if not stores:
        raise InputError("merge needs at least one store")
    _require_one_vocabulary(stores)
    _require_other_datasets(stores)
    order: dict[str, int] = {}
    for store in stores:
        for gene_id in store.gene_ids:
            order.setdefault(gene_id, len(order))
    positions: list[npt.NDArray[np.int32] | None] = []
    for store in stores:
        new = np.array([order[gene_id] for gene_id in store.gene_ids], dtype=np.int32)
        same = store.head_model == stores[0].head_model and np.array_equal(new, np.arange(len(new)))
        positions.append(None if same else new)
    schema, spelling = _unified([store.manifest.obs_schema for store in stores])
    return _Plan(tuple(stores), tuple(order), tuple(positions), schema, spelling)


def _require_one_vocabulary(stores: Sequence[Store]) -> None:
    first = stores[0]
    for store in stores[1:]:
        if store.vocabulary_hash != first.vocabulary_hash:
            names = {first.manifest.vocabulary_name, store.manifest.vocabulary_name}
            if len(names) == 2 and names <= set(SPECIES):
                raise VocabularyError(
                    f"{first.path} holds cells of {first.manifest.vocabulary_name}, {store.path} cells of "
                    f"{store.manifest.vocabulary_name}; a store holds those of one species. Keep them apart."
                )
            raise VocabularyError(
                f"{store.path} has the vocabulary {store.manifest.vocabulary_name!r} ({store.vocabulary_hash}), "
                f"{first.path} the vocabulary {first.manifest.vocabulary_name!r} ({first.vocabulary_hash}): the same "
                "gene would have two tokens. Build one of them again from its inputs, with the vocabulary of the "
                f"other: cellmill build NEW.mill INPUT... --vocabulary {first.path / VOCABULARY_NAME}"
            )


def _require_other_datasets(stores: Sequence[Store]) -> None:
    owner: dict[str, Store] = {}
    for store in stores:
        for source in store.manifest.sources:
            if source.name in owner:
                raise InputError(
                    f"the dataset {source.name!r} is in {owner[source.name].path} and in {store.path} (there "
                    f"{source.n_cells} cells, from {source.uri}). If it is the same data, build one of the stores "
                    "without it; if it is other data, rename one of the files and build that store again: uids are "
                    "made of the names of dataset and cell, and must not mean two cells."
                )
            owner[source.name] = store


def _unified(
    schemas: Sequence[Sequence[tuple[str, str]]],
) -> tuple[tuple[tuple[str, str], ...], dict[str, str]]:
    """Return the columns of the merged store and how each is spelt: SQL does not tell upper case from lower."""
    kinds = dict(STANDARD_COLUMNS)
    spelling = {name.casefold(): name for name in kinds}
    for schema in schemas:
        for name, kind in schema:
            spelt = spelling.setdefault(name.casefold(), name)
            kinds[spelt] = unify_types(kinds[spelt], kind) if spelt in kinds else kind
    return tuple(kinds.items()), spelling


class _Merge:
    """One merge under way."""

    def __init__(self, plan: _Plan, staging: Staging, *, threads: int, block_cells: int, duplicates: bool) -> None:
        self.plan = plan
        self.staging = staging
        self.folder = staging.folder
        self.threads = threads
        self.block_cells = block_cells
        self.duplicates = duplicates
        self.cells_done = 0

    def run(self) -> None:
        """Write all shards that are not there yet, then genes, reports and manifest."""
        finished = self.staging.prepare(self.plan.key)
        self.cells_done = sum(entry.shard.n_cells for entry in finished if entry.shard)
        if finished:
            emit("merging", message=f"going on after {self.cells_done} cells that an interrupted merge had finished")
        for number, (index, shard) in enumerate(self.plan.shards):
            if number < len(finished):
                continue
            with self.plan.unchanged[index].during():
                self.staging.record(number, JournalEntry(self._shard(number, index, shard)))
        self._conclude([entry.shard for entry in self.staging.entries() if entry.shard])

    def _told(self, n_cells: int) -> None:
        self.cells_done += n_cells
        emit("merging", done=self.cells_done, total=self.plan.n_cells, unit="cells")

    # ---- one shard --------------------------------------------------------------------------------------------

    def _shard(self, number: int, index: int, shard: ShardEntry) -> ShardEntry:
        store, name = self.plan.stores[index], f"{number:05d}"
        positions = self.plan.positions[index]
        if positions is None:
            cells = self._copied(store, shard.cells, f"shards/{name}.cells")
            self._told(shard.n_cells)
        else:
            cells = self._encoded_anew(store, shard, positions, f"shards/{name}.cells")
        return ShardEntry(
            cells=cells,
            obs=self._obs(store, shard, f"obs/{name}.parquet"),
            uids=self._copied(store, shard.uids, f"obs/{name}.uids"),
            n_cells=shard.n_cells,
            nnz=shard.nnz,
            source=shard.source,
        )

    def _copied(self, store: Store, entry: FileEntry, path: str) -> FileEntry:
        return copy_file(store.path / entry.path, entry, self.folder, path)

    def _obs(self, store: Store, shard: ShardEntry, path: str) -> FileEntry:
        """Copy the obs of a shard; written anew only where a column is spelt otherwise in the merged store."""
        spelling = self.plan.spelling
        if all(spelling[name.casefold()] == name for name, _ in store.manifest.obs_schema):
            return self._copied(store, shard.obs, path)
        source = store.path / shard.obs.path
        _require_proven(source, shard.obs)
        with damage_named(source):
            table = pq.read_table(source)
        write_obs(table.rename_columns([spelling[name.casefold()] for name in table.column_names]), self.folder / path)
        return file_entry(self.folder, path)

    def _encoded_anew(self, store: Store, entry: ShardEntry, positions: npt.NDArray[np.int32], path: str) -> FileEntry:
        """Write a shard of the same cells over the new positions."""
        source = store.path / entry.cells.path
        _require_proven(source, entry.cells)  # a flipped bit must not be sealed by a new checksum
        shard = open_shard(source, entry, n_genes=store.n_genes)
        n_genes = len(self.plan.gene_ids)
        with ShardWriter(self.folder / path, n_genes=n_genes) as writer:
            every = np.arange(entry.n_cells, dtype=np.int64)
            for cells in shard.portions(every, n_genes=store.n_genes, head=store.head, most_cells=self.block_cells):
                try:
                    indptr, indices, values = kernel.gather(
                        [shard.frames],
                        np.zeros(len(cells), dtype=np.int64),
                        *shard.spans(cells),
                        n_genes=store.n_genes,
                        head=store.head,
                        panel=positions,
                        n_columns=n_genes,
                        threads=self.threads,
                    )
                except FrameError as error:
                    cell = cells[getattr(error, "position", 0)]
                    reason = getattr(error, "reason", error)
                    raise FrameError(
                        f"{source}: cell {cell} of this shard cannot be decoded: {reason}. Run `cellmill verify "
                        f"{store.path}`, then restore the shard from a copy or build the store again."
                    ) from None
                frames, offsets = kernel.encode(
                    indptr, indices, values, n_genes=n_genes, head=self.plan.stores[0].head, threads=self.threads
                )
                writer.append(frames, offsets, nnz=len(values))
                self._told(len(cells))
            return writer.finish()

    # ---- the end ----------------------------------------------------------------------------------------------

    def _conclude(self, shards: Sequence[ShardEntry]) -> None:
        first = self.plan.stores[0].manifest
        sources = list(self._sources())
        manifest = Manifest(
            vocabulary_hash=first.vocabulary_hash,
            vocabulary_name=first.vocabulary_name,
            vocabulary=self._copied(self.plan.stores[0], first.vocabulary, VOCABULARY_NAME),
            head=None if first.head is None else self._copied(self.plan.stores[0], first.head, HEAD_NAME),
            genes=self._genes(),
            obs_schema=self.plan.schema,
            shards=Shards(shards),
            sources=Sources(sources),
            cellmill_version=own_version(),
        ).sealed()
        if self.duplicates:
            files = [KeyFile(self.folder / shard.obs.path, shard.n_cells, shard.source) for shard in shards]
            mark_duplicates(self.folder, manifest, files, scratch=self.staging.place)
        write_manifest(self.folder, manifest)

    def _sources(self) -> Iterator[SourceEntry]:
        number = 0
        for store, unchanged in zip(self.plan.stores, self.plan.unchanged, strict=True):
            with unchanged.during():
                for source in store.manifest.sources:
                    report = self._copied(store, source.report, f"reports/{number:05d}.json")
                    yield SourceEntry(**{**vars(source), "report": report})
                    number += 1

    def _genes(self) -> FileEntry:
        order = {gene_id: i for i, gene_id in enumerate(self.plan.gene_ids)}
        symbols = [""] * len(order)
        tokens = np.zeros(len(order), dtype=np.int64)
        detected = np.zeros(len(order), dtype=np.int64)
        for store in self.plan.stores:
            table = store.genes
            at = np.array([order[gene_id] for gene_id in store.gene_ids], dtype=np.int64)
            tokens[at] = table.column("token").to_numpy()
            # a rate is the quotient of two whole numbers: rounding gives the first of them back
            detected[at] += np.rint(table.column("detection_rate").to_numpy() * store.n_cells).astype(np.int64)
            for i, symbol in zip(at.tolist(), table.column("symbol").to_pylist(), strict=True):
                symbols[i] = symbol
        return write_genes(
            self.folder,
            gene_ids=self.plan.gene_ids,
            symbols=symbols,
            tokens=tokens,
            detection_rate=detected / max(1, self.plan.n_cells),
        )


def _blocks(n_cells: int, block_cells: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, n_cells, block_cells):
        yield np.arange(start, min(n_cells, start + block_cells), dtype=np.int64)


def _require_proven(path: Path, entry: FileEntry) -> None:
    with damage_named(path):
        found = hash_file(path)
    if found != entry.xxh3:
        raise CorruptStoreError(
            f"{path}: its checksum is not the manifest's; the bytes have changed. "
            "Restore it from a copy or build the store again."
        )
