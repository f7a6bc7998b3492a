"""From inputs to finished shards (floor 4): block by block, journalled, so that a killed run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill import kernel
from cellmill.errors import CellmillError, InputError
from cellmill.events import emit
from cellmill.ingest.ahead import read_ahead
from cellmill.ingest.audit import Violation
from cellmill.ingest.convert import cell_uids, convert_block, gene_hashes
from cellmill.ingest.digests import Digests
from cellmill.ingest.facts import CellFacts, measure_cells
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan, input_stamp
from cellmill.ingest.refuse import refusal
from cellmill.kernel import IngestedCells
from cellmill.sources import Source, open_source
from cellmill.sources.archive import file_behind
from cellmill.store import ShardEntry
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS, cast_obs, write_obs
from cellmill.store.staging import JournalEntry, Staging
from cellmill.store.writer import ShardWriter, file_entry, write_uids

__all__ = ["Ingestion", "ShardRecord"]


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard and what was learnt on the way.

    Attributes
    ----------
    source : int
        Number of the input in the plan.
    stop : int
        Rows of the input done after this shard.
    detected : int64, shape (n_store_genes,)
        Cells of the shard in which each gene is detected.
    umi : float64, shape (n_source_genes,)
        Sum of counts of each gene of the input in the shard.
    largest : int
        Largest count of the shard.
    merged : int
        Entries of the shard's cells that named a gene of the same cell again, and were added to it.
    """

    source: int
    stop: int
    shard: ShardEntry
    detected: npt.NDArray[np.int64]
    umi: npt.NDArray[np.float64]
    largest: int
    merged: int

    def to_entry(self) -> JournalEntry:
        """Return it as the journal keeps it."""
        facts = {name: getattr(self, name) for name in ("source", "stop", "largest", "merged")}
        return JournalEntry(self.shard, facts, {"detected": self.detected, "umi": self.umi})

    @classmethod
    def from_entry(cls, entry: JournalEntry) -> ShardRecord:
        """Return what the journal kept."""
        facts, arrays = entry.facts, entry.arrays
        return cls(
            source=facts["source"],
            stop=facts["stop"],
            shard=entry.shard,
            detected=arrays["detected"],
            umi=arrays["umi"],
            largest=facts["largest"],
            merged=facts["merged"],
        )


class Ingestion:
    """The inputs of a plan on their way into shards.

    Attributes
    ----------
    skipped : list of Skipped
        Inputs left out, by the plan or on the way.
    """

    def __init__(self, plan: BuildPlan, staging: Staging, digests: Digests, *, threads: int) -> None:
        self.plan = plan
        self.staging = staging
        self.digests = digests
        self.threads = threads
        self.hashes = gene_hashes(plan.gene_ids)
        self.head = kernel.open_model(plan.head) if plan.head else None
        self.storage_of = np.full(len(plan.vocabulary) + 1, -1, dtype=np.int64)
        self.storage_of[plan.order] = np.arange(len(plan.order))
        self.skipped: list[Skipped] = list(plan.skipped)
        self.cells_done = 0

    def run(self) -> list[ShardRecord]:
        """Write all shards that are not finished yet; returns the records of all of them, in order."""
        finished = [ShardRecord.from_entry(entry) for entry in self.staging.prepare(self.plan.key)]
        if finished:
            done = sum(record.shard.n_cells for record in finished)
            emit("building", message=f"going on after {done} cells that an interrupted run had finished")
        for number, source in enumerate(self.plan.sources):
            try:
                self._ingest(number, source, [record for record in finished if record.source == number])
            except CellmillError as error:
                if not self.plan.options.skip_bad or error.exit_code != 2:
                    raise
                self._skip(number, source, error)
        return [ShardRecord.from_entry(entry) for entry in self.staging.entries()]

    def _skip(self, number: int, source: SourcePlan, error: CellmillError) -> None:
        self.staging.forget(lambda entry: entry.facts["source"] == number)
        self.skipped.append(Skipped(source.path, str(error)))
        emit(f"skipped {source.path.name}", message=f"skipped {source.path}")  # why: in the report

    def _ingest(self, number: int, plan: SourcePlan, finished: Sequence[ShardRecord]) -> None:
        start = max((record.stop for record in finished), default=0)
        self.cells_done += start
        if start >= plan.n_cells:
            return
        with open_source(plan.path, format=self.plan.options.format) as source:
            _require_unchanged(plan)
            self.digests.start(file_behind(plan.path))
            obs = _standard_obs(plan, source)
            shard = _OpenShard(self, number, plan, obs, start)
            position_of = self.storage_of[plan.target].astype(np.int32)
            stored = source.stored_blocks(plan.matrix, block_cells=self.plan.options.block_cells, start=start)
            violation = None
            try:
                with read_ahead(stored) as blocks:
                    for block in blocks:
                        cells = convert_block(
                            block,
                            position_of=position_of,
                            hashes=self.hashes,
                            head=self.head,
                            classes=plan.classes,
                            threads=self.threads,
                        )
                        if isinstance(cells, Violation):
                            violation = cells
                            break
                        shard.add(cells, measure_cells(cells, plan.classes))
                        self.cells_done += cells.n_cells
                        stage, total = f"building from {plan.path.name}", self.plan.n_cells
                        emit(stage, done=self.cells_done, total=total, unit="cells")
                        if shard.is_full:
                            shard = shard.close_and_next()
                if violation is not None:  # told only now, since what is said reads the source, too
                    raise refusal(source, plan.matrix, violation, skip_bad=self.plan.options.skip_bad)
                _require_unchanged(plan)
                if shard.n_cells:
                    shard.close()
            finally:
                shard.abandon()


class _OpenShard:
    """The shard that is being filled."""

    def __init__(self, ingestion: Ingestion, source: int, plan: SourcePlan, obs: pa.Table, start: int) -> None:
        self._ingestion = ingestion
        self._source = source
        self._plan = plan
        self._obs = obs
        self._start = start
        self._entry_number = ingestion.staging.n_entries
        self._name = f"{ingestion.plan.first_shard + self._entry_number:05d}"
        n_genes = len(ingestion.plan.order)
        self._writer = ShardWriter(ingestion.staging.folder / f"shards/{self._name}.cells", n_genes=n_genes)
        self._detected = np.zeros(n_genes, dtype=np.int64)
        self._umi = np.zeros(plan.n_genes)
        self._largest = 0
        self._merged = 0
        self._measured: list[dict[str, npt.NDArray[Any]]] = []

    @property
    def n_cells(self) -> int:
        return self._writer.n_cells

    @property
    def is_full(self) -> bool:
        options = self._ingestion.plan.options
        return self.n_cells >= options.shard_cells or self._writer.frames_bytes >= options.shard_bytes

    def add(self, cells: IngestedCells, facts: CellFacts) -> None:
        """Write a block of cells."""
        self._writer.append(cells.frames, cells.offsets, nnz=cells.nnz)
        self._detected += cells.cells_per_gene
        self._umi += cells.umi_per_source_gene
        self._largest = max(self._largest, cells.largest)
        self._merged += cells.merged
        measured: dict[str, npt.NDArray[Any]] = {"fingerprint": cells.fingerprints, **facts.columns()}
        self._measured.append(measured | {"stored_counts": cells.totals, "n_genes_stored": cells.detected})

    def close(self) -> None:
        """Finish the shard and its obs, and record them."""
        n_cells, nnz = self.n_cells, self._writer.nnz
        folder = self._ingestion.staging.folder
        obs_path = f"obs/{self._name}.parquet"
        obs = self._shard_obs(n_cells)
        write_obs(obs, folder / obs_path)
        entry = ShardEntry(
            cells=self._writer.finish(),
            obs=file_entry(folder, obs_path),
            uids=write_uids(folder, f"obs/{self._name}.uids", obs.column("uid").to_numpy()),
            n_cells=n_cells,
            nnz=nnz,
            source=self._plan.name,
        )
        record = ShardRecord(
            source=self._source,
            stop=self._start + n_cells,
            shard=entry,
            detected=self._detected,
            umi=self._umi,
            largest=self._largest,
            merged=self._merged,
        )
        self._ingestion.staging.record(self._entry_number, record.to_entry())

    def close_and_next(self) -> _OpenShard:
        """Finish this shard and open the one that follows in the same input."""
        self.close()
        return _OpenShard(self._ingestion, self._source, self._plan, self._obs, self._start + self.n_cells)

    def abandon(self) -> None:
        """Remove a shard that was not finished."""
        self._writer.abandon()

    def _shard_obs(self, n_cells: int) -> pa.Table:
        own = self._obs.slice(self._start, n_cells)
        for name in self._measured[0]:
            own = own.append_column(name, pa.array(np.concatenate([part[name] for part in self._measured])))
        columns = [*STANDARD_COLUMNS, *FACT_COLUMNS, *(new for _, new, _ in self._plan.obs_names)]
        kinds = dict(self._ingestion.plan.obs_schema)  # of all sources: files of one type are read without casts
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
