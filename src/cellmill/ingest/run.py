"""Carrying out a build (floor 4): the only place where sources and store meet."""

from __future__ import annotations

import errno
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill import kernel
from cellmill.errors import CellmillError, DiskSpaceError, InputError, StoreExistsError
from cellmill.events import emit
from cellmill.genes import Vocabulary
from cellmill.ingest.audit import find_violation, proven_counts
from cellmill.ingest.convert import CellBlock, cell_uids, convert_block, gene_hashes
from cellmill.ingest.plan import (
    BuildOptions,
    BuildPlan,
    Skipped,
    SourcePlan,
    input_stamp,
    plan_build,
    unified_schema,
)
from cellmill.ingest.refuse import refusal
from cellmill.ingest.staging import JournalEntry, Staging
from cellmill.sources import Source, open_source
from cellmill.storage import hash_file, require_free_bytes, write_atomic
from cellmill.store import MANIFEST_NAME, VOCABULARY_NAME, Manifest, ShardEntry, SourceEntry, Store, open_store
from cellmill.store.obs import STANDARD_COLUMNS, cast_obs, write_obs
from cellmill.store.writer import ShardWriter, file_entry, write_genes, write_manifest, write_uids
from cellmill.units import size_text

__all__ = ["build"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def build(
    path: str | Path,
    inputs: Sequence[str | Path] | str | Path,
    *,
    vocabulary: str | Path | Vocabulary | None = None,
    counts: str = "X",
    min_match: float = 0.6,
    rename: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    format: str | None = None,
    overwrite: bool = False,
    threads: int = 0,
    shard_cells: int = 200_000,
    block_cells: int = 4096,
) -> Store:
    """Build a store from count matrices and return it, open.

    Every stored value is proven to be a raw count; genes are resolved to one vocabulary; what is dropped, merged or
    renamed is counted in the store's reports. Interrupted at any moment, the same call goes on where it stopped.

    Parameters
    ----------
    path
        Folder of the new store, by custom `NAME.mill`. It appears when it is complete, not before.
    inputs
        Files (h5ad, 10x HDF5), Matrix Market folders, folders of these, or patterns.
    vocabulary
        "human", "mouse" (shipped; recognised from the ids when None), "union" (the files' own ids, as they are), a
        `Vocabulary`, or the path of its JSON.
    counts
        Where each file's raw counts are: "X", "raw", "layers/NAME", or "auto" for the one matrix that is proven raw.
    min_match
        Share of a file's genes that must be found in the vocabulary.
    rename
        New names of obs columns, for instance {"Celltype": "cell_type"}.
    skip_bad
        Leave out inputs that cannot be used, listed in the store's reports, instead of stopping.
    format
        "h5ad", "10x-h5" or "mex", where the guess from the contents is not wanted.
    overwrite
        Replace a store that lies at `path`, at the end.
    threads
        Threads of the kernel; 0 for all cores.
    shard_cells
        Most cells in a shard.
    block_cells
        Cells read at once; memory grows with it.

    Raises
    ------
    InputError
        For inputs that cannot be used: not found, not raw, genes unknown, damaged.
    StoreExistsError
        When something lies at `path` and `overwrite` is not set.
    StoreLockedError
        When another process is building the same store.
    DiskSpaceError
        When there is not enough room, before work starts.

    Examples
    --------
    >>> store = build("atlas.mill", ["a.h5ad", "b.h5"])  # doctest: +SKIP
    """
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    _check_target(target, overwrite=overwrite)
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    options = BuildOptions(
        counts=counts,
        min_match=min_match,
        rename=tuple(sorted((rename or {}).items())),
        skip_bad=skip_bad,
        format=format,
        shard_cells=shard_cells,
        block_cells=block_cells,
    )
    plan = plan_build(listed, vocabulary=vocabulary, options=options)
    require_free_bytes(target, plan.estimated_bytes, what="the store")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with Staging.locked(target) as staging:
            _check_target(target, overwrite=overwrite)  # another build may have come first since
            _Build(plan, staging, threads=threads).run()
    except PermissionError as error:
        raise InputError(
            f"{error.filename or target}: not allowed ({error.strerror}). Choose a place where you may write, or have "
            "the permissions of this one changed."
        ) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DiskSpaceError(
            f"{target}: no room was left while the store was written ({error.strerror}). Finished work is kept in "
            f"{Staging.folder_of(target)}: free about {size_text(plan.estimated_bytes)} and run the same command again."
        ) from error
    return open_store(target)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    if overwrite and (target / MANIFEST_NAME).exists():
        return
    what = "a store" if (target / MANIFEST_NAME).exists() else "something that is not a store"
    remedy = "pass --overwrite (in Python: overwrite=True) to replace it, or" if what == "a store" else ""
    raise StoreExistsError(f"{target}: {what} lies here already; {remedy} choose another name".replace(";  ", "; "))


@dataclass
class _Tally:
    """What the finished shards of one input add up to."""

    umi: npt.NDArray[np.float64]
    n_cells: int = 0
    nnz: int = 0
    largest: int = 0
    merged: int = 0


class _Build:
    """One build under way."""

    def __init__(self, plan: BuildPlan, staging: Staging, *, threads: int) -> None:
        self.plan = plan
        self.staging = staging
        self.threads = threads
        self.started = time.time()
        self.gene_ids = [plan.vocabulary.ids[i] for i in plan.order]
        self.hashes = gene_hashes(self.gene_ids)
        self.storage_of = np.full(len(plan.vocabulary) + 1, -1, dtype=np.int64)
        self.storage_of[plan.order] = np.arange(len(plan.order))
        self.skipped: list[Skipped] = list(plan.skipped)
        self.cells_done = 0

    def run(self) -> None:
        """Write all shards that are not finished yet, then genes, reports and manifest, and publish."""
        entries = self.staging.prepare(self.plan.key)
        if entries:
            done = sum(entry.shard.n_cells for entry in entries)
            emit("building", message=f"going on after {done} cells that an interrupted build had finished")
        for number, source in enumerate(self.plan.sources):
            try:
                self._ingest(number, source, [entry for entry in entries if entry.source == number])
            except CellmillError as error:
                if not self.plan.options.skip_bad or error.exit_code != 2:
                    raise
                self.staging.forget_source(number)
                self.skipped.append(Skipped(source.path, str(error)))
                emit(f"skipped {source.path.name}", message=f"skipped {error}")
        self._conclude(self.staging.entries())
        self.staging.publish()

    # ---- one input --------------------------------------------------------------------------------------------

    def _ingest(self, number: int, plan: SourcePlan, finished: Sequence[JournalEntry]) -> None:
        start = max((entry.stop for entry in finished), default=0)
        self.cells_done += start
        if start >= plan.n_cells:
            return
        with open_source(plan.path, format=self.plan.options.format) as source:
            _require_unchanged(plan)
            obs = _standard_obs(plan, source)
            shard = _OpenShard(self, number, plan, obs, start)
            try:
                for block in source.blocks(plan.matrix, block_cells=self.plan.options.block_cells, start=start):
                    violation = find_violation(block)
                    if violation is not None:
                        raise refusal(source, plan.matrix, violation)
                    shard.add(self._converted(plan, block), merged=block.merged)
                    self.cells_done += len(block.indptr) - 1
                    emit(f"building from {plan.path.name}", done=self.cells_done, total=self.plan.n_cells, unit="cells")
                    if shard.is_full:
                        shard = shard.close_and_next()
                _require_unchanged(plan)
                if shard.n_cells:
                    shard.close()
            finally:
                shard.abandon()

    def _converted(self, plan: SourcePlan, block: Any) -> CellBlock:
        position_of = self.storage_of[plan.target]
        return convert_block(
            block,
            proven_counts(block),
            position_of=position_of,
            hashes=self.hashes,
            sums_duplicates=bool(plan.report.duplicates),
        )

    # ---- the end ----------------------------------------------------------------------------------------------

    def _conclude(self, entries: Sequence[JournalEntry]) -> None:
        folder, plan = self.staging.folder, self.plan
        used = [plan.sources[i] for i in sorted({entry.source for entry in entries} | self._empty_sources())]
        if not used:
            raise InputError(
                "no input is left to build from:\n" + "\n".join(f"  {s.path}: {s.reason}" for s in self.skipped)
            )
        n_cells = sum(entry.shard.n_cells for entry in entries)
        detected = sum((entry.detected for entry in entries), start=np.zeros(len(plan.order), dtype=np.int64))
        genes = write_genes(
            folder,
            gene_ids=self.gene_ids,
            symbols=[plan.vocabulary.symbols[i] for i in plan.order],
            tokens=np.asarray(plan.vocabulary.tokens, dtype=np.int64)[plan.order],
            detection_rate=detected / max(1, n_cells),
        )
        plan.vocabulary.to_json(folder / VOCABULARY_NAME)
        sources = [self._source_entry(source, entries) for source in used]
        self._write_build_report(n_cells)
        manifest = Manifest(
            vocabulary_hash=plan.vocabulary.hash,
            vocabulary_name=plan.vocabulary_name,
            vocabulary=file_entry(folder, VOCABULARY_NAME),
            genes=genes,
            obs_schema=unified_schema([source.obs_names for source in used]),
            shards=tuple(entry.shard for entry in entries),
            sources=tuple(sources),
            cellmill_version=_version(),
        )
        write_manifest(folder, manifest)

    def _empty_sources(self) -> set[int]:
        skipped = {skip.path for skip in self.skipped}
        return {i for i, s in enumerate(self.plan.sources) if s.n_cells == 0 and s.path not in skipped}

    def _source_entry(self, plan: SourcePlan, entries: Sequence[JournalEntry]) -> SourceEntry:
        own = [entry for entry in entries if entry.shard.source == plan.name]
        n_written = sum(entry.shard.n_cells for entry in own)
        if n_written != plan.n_cells:
            raise CellmillError(
                f"{plan.path}: {plan.n_cells} cells were planned, {n_written} are in the shards; "
                f"nothing was published. Remove {self.staging.place} and build again."
            )
        tally = _Tally(umi=np.zeros(plan.n_genes))
        for entry in own:
            tally = replace(
                tally,
                umi=tally.umi + entry.umi,
                n_cells=tally.n_cells + entry.shard.n_cells,
                nnz=tally.nnz + entry.shard.nnz,
                largest=max(tally.largest, entry.largest),
                merged=tally.merged + entry.merged,
            )
        digest = hash_file(plan.path)
        size = sum(f.stat().st_size for f in plan.path.rglob("*")) if plan.path.is_dir() else plan.path.stat().st_size
        report = {
            "name": plan.name, "kind": plan.kind, "uri": str(plan.path), "bytes": size, "xxh3": digest,
            "matrix": plan.matrix, "n_cells": tally.n_cells, "counts_stored": tally.nnz,
            "proof": {"whole, finite and not negative": "all values", "largest_count": tally.largest,
                      "umis": int(tally.umi.sum())},
            "genes": plan.report.with_umi_shares(tally.umi).to_dict(),
            "genes_dropped": list(plan.unmatched),
            "obs": [{"file": old, "store": new, "type": kind} for old, new, kind in plan.obs_names],
            "entries_merged": tally.merged,
            "notes": list(plan.notes),
        }  # fmt: skip
        name = f"reports/{self.plan.sources.index(plan):05d}.json"
        write_atomic(self.staging.folder / name, (json.dumps(report, indent=1, default=str) + "\n").encode())
        return SourceEntry(
            name=plan.name,
            kind=plan.kind,
            uri=str(plan.path),
            bytes=size,
            xxh3=digest,
            matrix=plan.matrix,
            n_cells=tally.n_cells,
            report=file_entry(self.staging.folder, name),
        )

    def _write_build_report(self, n_cells: int) -> None:
        """Facts of this run (times, what was skipped); not named by the manifest, since they differ from run to run."""
        report = {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(time.time() - self.started, 3),
            "kernel": kernel.IMPLEMENTATION,
            "cellmill": _version(),
            "n_cells": n_cells,
            "skipped": [skipped.to_dict() for skipped in self.skipped],
        }
        write_atomic(self.staging.folder / "reports" / "build.json", (json.dumps(report, indent=1) + "\n").encode())


class _OpenShard:
    """The shard that is being filled."""

    def __init__(self, build: _Build, source: int, plan: SourcePlan, obs: pa.Table, start: int) -> None:
        self._build = build
        self._source = source
        self._plan = plan
        self._obs = obs
        self._start = start
        self._number = build.staging.n_entries
        self._writer = ShardWriter(
            build.staging.folder / f"shards/{self._number:05d}.cells", n_genes=len(build.plan.order)
        )
        self._detected = np.zeros(len(build.plan.order), dtype=np.int64)
        self._umi = np.zeros(plan.n_genes)
        self._largest = 0
        self._merged = 0
        self._measured: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int32]]] = []

    @property
    def n_cells(self) -> int:
        return self._writer.n_cells

    @property
    def is_full(self) -> bool:
        options = self._build.plan.options
        return self.n_cells >= options.shard_cells or self._writer.frames_bytes >= options.shard_bytes

    def add(self, cells: CellBlock, *, merged: int) -> None:
        """Encode and write a block of cells."""
        frames, offsets = kernel.encode(
            cells.indptr, cells.indices, cells.values, n_genes=len(self._detected), threads=self._build.threads
        )
        self._writer.append(frames, offsets, nnz=len(cells.values))
        self._detected += np.bincount(cells.indices, minlength=len(self._detected))
        self._umi += cells.umi_per_source_gene
        self._largest = max(self._largest, int(cells.values.max(initial=0)))
        self._merged += merged
        self._measured.append((cells.fingerprints, cells.totals, cells.n_detected))

    def close(self) -> None:
        """Finish the shard and its obs, and record them."""
        n_cells, nnz = self.n_cells, self._writer.nnz
        folder = self._build.staging.folder
        obs_path = f"obs/{self._number:05d}.parquet"
        obs = self._shard_obs(n_cells)
        write_obs(obs, folder / obs_path)
        entry = ShardEntry(
            cells=self._writer.finish(),
            obs=file_entry(folder, obs_path),
            uids=write_uids(folder, f"obs/{self._number:05d}.uids", obs.column("uid").to_numpy()),
            n_cells=n_cells,
            nnz=nnz,
            source=self._plan.name,
        )
        self._build.staging.record(
            self._number,
            JournalEntry(
                self._source, self._start + n_cells, entry, self._detected, self._umi, self._largest, self._merged
            ),
        )

    def close_and_next(self) -> _OpenShard:
        """Finish this shard and open the one that follows in the same input."""
        self.close()
        return _OpenShard(self._build, self._source, self._plan, self._obs, self._start + self.n_cells)

    def abandon(self) -> None:
        """Remove a shard that was not finished."""
        self._writer.abandon()

    def _shard_obs(self, n_cells: int) -> pa.Table:
        fingerprints, totals, detected = (np.concatenate(parts) for parts in zip(*self._measured, strict=True))
        own = self._obs.slice(self._start, n_cells)
        for name, values in (("fingerprint", fingerprints), ("total_counts", totals), ("n_genes_detected", detected)):
            own = own.append_column(name, pa.array(values))
        columns = [*STANDARD_COLUMNS, *(new for _, new, _ in self._plan.obs_names)]
        kinds = dict(self._build.plan.obs_schema)  # of all sources: files of one type are read without casts
        return cast_obs(own.select(columns), [(name, kinds[name]) for name in columns])


def _require_unchanged(plan: SourcePlan) -> None:
    if input_stamp(plan.path) != plan.stamp:
        raise InputError(
            f"{plan.path}: the file was changed while the store was being built. Build again when it is finished."
        )


def _standard_obs(plan: SourcePlan, source: Source) -> pa.Table:
    """The file's obs under the store's names, with dataset and uid."""
    table = source.obs()
    names = table.column("cell").to_pylist()
    seen: Counter[str] = Counter()
    occurrences = []
    for name in names:
        occurrences.append(seen[name])
        seen[name] += 1
    columns = {
        "cell": table.column("cell"),
        "dataset": pa.array([plan.name] * len(names), pa.string()),
        "uid": pa.array(cell_uids(plan.name, names, occurrences), pa.uint64()),
    }
    columns |= {new: table.column(old) for old, new, _ in plan.obs_names}
    return pa.table(columns)


def _version() -> str:
    try:
        return version("cellmill")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"
