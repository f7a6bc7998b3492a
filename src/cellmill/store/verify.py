"""Is a store what its manifest says? (floor 3): every checksum, every frame, obs against counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill import kernel
from cellmill.errors import CellmillError, InputError
from cellmill.events import emit
from cellmill.storage import hash_file, map_file
from cellmill.store.disk import disk_bytes
from cellmill.store.format import uids_hash_holds
from cellmill.store.obs_types import FACT_COLUMNS, STANDARD_COLUMNS, STORED_COLUMNS, cast_obs
from cellmill.store.parquet import damage_named, open_parquet
from cellmill.store.shard import Shard, map_uids, open_shard

if TYPE_CHECKING:
    from cellmill.store.manifest import FileEntry, ShardEntry
    from cellmill.store.reader import Store

__all__ = ["VerifyReport", "verify_store"]

_COMPARED = {"uid": STANDARD_COLUMNS["uid"], **{name: FACT_COLUMNS[name] for name in STORED_COLUMNS}}


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found.

    Attributes
    ----------
    n_cells_decoded, n_files : int
    n_bytes : int
        Bytes that were checked against a checksum: those that the store takes, as `disk_bytes` counts them.
    problems : tuple of str
        One line each, naming the file; empty when the store is sound.
    """

    n_cells: int
    n_cells_decoded: int
    n_files: int
    n_bytes: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "ok": self.ok,
            "n_cells": self.n_cells,
            "n_cells_decoded": self.n_cells_decoded,
            "n_files": self.n_files,
            "n_bytes": self.n_bytes,
            "problems": list(self.problems),
        }


def verify_store(store: Store, *, sample: float = 1.0) -> VerifyReport:
    """Check a store whole; `sample` is the share of cells of each shard that is decoded (checksums: always all).

    Raises
    ------
    InputError
        When `sample` is not in (0, 1].
    """
    if not 0 < sample <= 1:
        raise InputError(f"sample must be above 0 and at most 1, not {sample}")
    manifest = store.manifest
    problems: list[str] = []
    files = [*manifest.whole_files, *(source.report for source in manifest.sources)]
    files += [entry for shard in manifest.shards for entry in (shard.obs, shard.uids, shard.cells)]
    for entry in files:
        problems += _check_file(store, entry)
    problems += _check_sources(store)
    decoded = 0
    n_genes, head = _genes_and_head(store)
    for number, entry_of_shard in enumerate(manifest.shards):
        found, cells = _check_shard(store, entry_of_shard, n_genes=n_genes, head=head, sample=sample)
        problems += found
        decoded += cells
        emit("verifying", done=number + 1, total=len(manifest.shards), unit="shards")
    return VerifyReport(
        n_cells=store.n_cells,
        n_cells_decoded=decoded,
        n_files=len(files) + 1,  # and the manifest, whose own checksum held when the store was opened
        n_bytes=sum(disk_bytes(manifest).values()),
        problems=tuple(problems),
    )


def _genes_and_head(store: Store) -> tuple[int | None, Any]:
    """Return the number of genes, and the model of head genes.

    Where a file of theirs is damaged, which `_check_file` has found by its checksum: None, and False, with which no
    frame can be decoded.
    """
    try:
        n_genes = store.n_genes
    except CellmillError:
        return None, None if store.manifest.head is None else False
    try:
        return n_genes, store.head
    except CellmillError:
        return n_genes, False


def _check_sources(store: Store) -> Iterator[str]:
    """Compare what the manifest says of sources with what it says of their shards."""
    sources, shards = store.manifest.sources, store.manifest.shards
    if not len(sources):  # a part of a store is verified
        return
    cells: Counter[str] = Counter()
    for name, n_cells in zip(shards.texts("source"), shards.n_cells.tolist(), strict=True):
        cells[name] += n_cells
    for entry in sources:
        if len(shards) and cells.pop(entry.name, 0) != entry.n_cells:
            yield f"{store.path}: the manifest says {entry.n_cells} cells of {entry.name!r}, its shards hold others"
    for name in cells:
        yield f"{store.path}: shards are of the source {name!r}, which the manifest lacks"


def _check_file(store: Store, entry: FileEntry) -> Iterator[str]:
    path = store.path / entry.path
    try:
        if not path.is_file():
            yield f"{path}: {'no file' if path.exists() else 'missing'}"
            return
        size = path.stat().st_size
        if size != entry.bytes:
            yield f"{path}: {size} bytes, the manifest says {entry.bytes}"
        elif hash_file(path) != entry.xxh3:
            yield f"{path}: its checksum is not the manifest's; the bytes have changed"
    except OSError as error:  # of this file alone: what else is damaged is wanted too
        yield f"{path}: the system does not read it ({error.strerror})"


def _check_shard(
    store: Store, entry: ShardEntry, *, n_genes: int | None, head: Any, sample: float
) -> tuple[list[str], int]:
    path = store.path / entry.cells.path
    try:
        shard = open_shard(path, entry, n_genes=n_genes)
    except CellmillError as error:
        return [str(error)], 0
    problems = [f"{path}: the checksum of its {name} does not hold" for name in shard.damaged_sections()]
    obs_path = store.path / entry.obs.path
    try:
        file = open_parquet(obs_path, n_rows=entry.n_cells)
        with file, damage_named(obs_path):
            obs = _compared(file)
    except CellmillError as error:
        return [*problems, str(error)], 0
    problems += _check_uids(store.path / entry.uids.path, entry, obs.column("uid"))
    if head is False:
        return problems, 0
    found, decoded = _check_cells(path, shard, entry, obs, head=head, sample=sample)
    return problems + found, decoded


def _compared(file: pq.ParquetFile) -> pa.Table:
    """Return what uids and frames must agree with; where whole cells were not measured, other columns say it."""
    present = set(file.schema_arrow.names)
    names = {"uid": "uid"} | {name: name if name in present else older for name, older in STORED_COLUMNS.items()}
    names = {name: kept for name, kept in names.items() if kept in present}  # cast_obs gives nulls for what is missing
    table = file.read(columns=list(names.values())).select(list(names.values()))
    return cast_obs(table.rename_columns(list(names)), list(_COMPARED.items()))


def _check_uids(path: Path, entry: ShardEntry, in_obs: pa.ChunkedArray) -> list[str]:
    try:
        uids = map_uids(path, entry)
    except CellmillError as error:
        return [str(error)]
    problems = [] if uids_hash_holds(map_file(path)) else [f"{path}: the checksum at its end does not hold"]
    if not np.array_equal(in_obs.to_numpy(), uids):
        problems.append(f"{path}: uids differ from those in obs")
    return problems


def _check_cells(
    path: Path, shard: Shard, entry: ShardEntry, obs: pa.Table, *, head: Any, sample: float
) -> tuple[list[str], int]:
    totals, detected = (obs.column(name).to_numpy() for name in STORED_COLUMNS)
    problems: list[str] = []
    cells = np.arange(entry.n_cells)
    if sample < 1:
        wanted = max(1, round(sample * entry.n_cells))
        cells = np.sort(np.random.default_rng(entry.n_cells).choice(entry.n_cells, wanted, replace=False))
    nnz = done = 0
    for part in shard.portions(cells, n_genes=shard.footer.n_genes, head=head):
        start, stop = shard.spans(part)
        try:
            got = kernel.gather_frames(
                [shard.frames], np.zeros(len(part), np.int64), start, stop, n_genes=shard.footer.n_genes, head=head,
                totals=True,
            )  # fmt: skip
        except CellmillError as error:
            cell = part[getattr(error, "position", 0)]
            return [*problems, f"{path}: cell {cell} cannot be decoded: {error}"], done
        assert got.totals is not None  # they were asked for
        done += len(part)
        nnz += int(got.indptr[-1])
        wrong = (np.diff(got.indptr) != detected[part]) | (got.totals.astype(np.int64) != totals[part])
        if wrong.any():
            problems.append(f"{path}: cell {part[np.flatnonzero(wrong)[0]]}: counts and obs differ in total or genes")
    if sample == 1 and nnz != entry.nnz:
        problems.append(f"{path}: {nnz} counts decoded, the manifest says {entry.nnz}")
    return problems, len(cells)
