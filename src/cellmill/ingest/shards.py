"""From the rows of a task to finished shards (floor 4): block by block, shard by shard kept, so that work goes on.

Carried out by whichever process has the plan and sees the inputs and the folder of pieces; the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill import kernel
from cellmill.errors import InputError
from cellmill.ingest.admission import Admission, Admitted, Tally
from cellmill.ingest.ahead import read_ahead
from cellmill.ingest.audit import Violation
from cellmill.ingest.candidates import open_limited
from cellmill.ingest.cell_table import cell_table, known_facts
from cellmill.ingest.convert import gene_hashes
from cellmill.ingest.digests import Digests
from cellmill.ingest.filters import FilteredObs
from cellmill.ingest.obs_mapping import map_obs
from cellmill.ingest.plan import BuildPlan, SourcePlan, input_stamp
from cellmill.ingest.refuse import refusal
from cellmill.ingest.tasks import Task, source_key
from cellmill.kernel import IngestedCells
from cellmill.sources import CountBlock, Source
from cellmill.sources.archive import file_behind
from cellmill.store import ShardEntry
from cellmill.store.journal import JournalEntry
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS, cast_obs, write_obs
from cellmill.store.pieces import Pieces
from cellmill.store.writer import ShardWriter, file_entry, write_uids

__all__ = ["Ingestion", "ShardRecord", "digest_note"]


def digest_note(source: SourcePlan) -> str:
    """Return the name under which the hash of an input is noted beside the journal."""
    return f"digest-{source_key(source)}"


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard and what was learnt on the way.

    Attributes
    ----------
    source : int
        Number of the input in the plan.
    stop : int
        Rows of the input done after this shard.
    shard : ShardEntry or None
        None where no cell of these rows is in the store.
    arrays : mapping
        Of "detected" and "umi".
    largest : int
        Largest count of the shard.
    merged : int
        Entries of the shard's cells that named a gene of the same cell again, and were added to it.
    tally : Tally
        What became of the cells of these rows.
    """

    source: int
    stop: int
    shard: ShardEntry | None
    arrays: Mapping[str, npt.NDArray[Any]]
    largest: int
    merged: int
    tally: Tally

    @property
    def detected(self) -> npt.NDArray[np.int64]:
        """Cells of the shard in which each gene is detected, int64[n_store_genes]; read from the journal each time."""
        return self.arrays["detected"]

    @property
    def umi(self) -> npt.NDArray[np.float64]:
        """Sum of counts of each gene of the input in the shard, float64[n_source_genes]; read likewise."""
        return self.arrays["umi"]

    def to_entry(self) -> JournalEntry:
        """Return it as the journal keeps it, where inputs have no numbers."""
        facts = {"stop": self.stop, "largest": self.largest, "merged": self.merged, "tally": self.tally.to_dict()}
        return JournalEntry(self.shard, facts, self.arrays)

    @classmethod
    def from_entry(cls, entry: JournalEntry, *, source: int) -> ShardRecord:
        """Return what the journal kept."""
        facts = entry.facts
        return cls(
            source=source,
            stop=facts["stop"],
            shard=entry.shard,
            arrays=entry.arrays,
            largest=facts["largest"],
            merged=facts["merged"],
            tally=Tally.from_dict(facts["tally"]),
        )


class Ingestion:
    """What one process needs to carry out tasks of a plan. A context manager; keeps the last input open.

    Parameters
    ----------
    folder
        From which the inputs' paths are to be seen; None for the current one.
    """

    def __init__(
        self, plan: BuildPlan, pieces: Pieces, digests: Digests, *, threads: int, folder: Path | None = None
    ) -> None:
        self.plan = plan
        self.pieces = pieces
        self.threads = threads
        self.hashes = gene_hashes(plan.gene_ids)
        self.head = kernel.open_model(plan.head) if plan.head else None
        self.storage_of = np.full(len(plan.vocabulary) + 1, -1, dtype=np.int64)
        self.storage_of[plan.order] = np.arange(len(plan.order))
        self._digests = digests
        self._hashed: dict[Path, SourcePlan] = {}
        self._folder = folder or Path()
        self._open: tuple[SourcePlan, Source] | None = None
        self._obs: pa.Table | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self.desk = self._held.enter_context(self.pieces.desk())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_input()
        self._held.close()

    def carry_out(self, task: Task, told: Callable[[int], None]) -> None:
        """Write the shards of a task that are not finished yet; `told` is called with the rows done so far.

        Raises
        ------
        InputError
            For an input that cannot be used: a value that is no raw count, damage, a change since it was planned.
        """
        finished = self.pieces.finished(task.key)
        start = int(finished[-1].facts["stop"]) if finished else task.start
        told(start - task.start)
        if start >= task.stop:
            return
        plan = self.plan.sources[task.source]
        source = self._opened(plan)
        self._require_unchanged(plan)
        if task.start == 0 and self.pieces.noted(digest_note(plan)) is None:
            path = file_behind(self._folder / plan.path)
            self._hashed[path] = plan
            self._digests.start(path)
        shards = _Shards(self, plan, task, source, start=start, number=len(finished))
        violation = None
        block_cells = self.plan.options.block_cells
        stored = source.stored_blocks(plan.matrix, block_cells=block_cells, start=start, stop=task.stop)
        try:
            with read_ahead(stored) as blocks:
                for block in blocks:
                    violation = self._add(block, shards, told=lambda stop: told(stop - task.start))
                    if violation is not None:
                        break
            if violation is not None:  # told only now, since what is said reads the source, too
                raise refusal(source, plan.matrix, violation, options=self.plan.options)
            self._require_unchanged(plan)
            shards.close()
        finally:
            shards.abandon()

    def settle(self) -> None:
        """Note the hashes of the inputs whose first rows were read here; waits for them."""
        for path, plan in self._hashed.items():
            self.pieces.note(digest_note(plan), {"xxh3": self._digests.of(path)})
        self._hashed.clear()

    def _add(self, block: CountBlock, shards: _Shards, *, told: Callable[[int], None]) -> Violation | None:
        """Write a block into as many shards as it falls into; returns the first value that is no raw count."""
        begin = 0
        while begin < block.n_cells:
            part = _rows_of(block, begin, min(block.n_cells, begin + shards.rows_left))
            admitted = shards.admission.admit(part)
            if isinstance(admitted, Violation):
                return admitted
            fitting = shards.fitting(admitted.cells)
            if fitting < admitted.cells.n_cells:
                part = _rows_of(part, 0, int(admitted.rows[fitting - 1]) + 1 - part.start)
                admitted = shards.admission.admit(part)
                assert not isinstance(admitted, Violation)
            shards.add(admitted, stop=part.stop)
            begin += part.n_cells
            told(part.stop)
        return None

    def _opened(self, plan: SourcePlan) -> Source:
        if self._open is None or self._open[0] is not plan:
            self._close_input()
            self._open = plan, open_limited(self._folder / plan.path, self.plan.options)
        return self._open[1]

    def obs_of(self, source: Source) -> pa.Table:
        """Return the cells of the input that is open, mapped once for all of its tasks."""
        if self._obs is None:
            self._obs = map_obs(source, self.plan.options.obs_map).table
        return self._obs

    def _close_input(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = self._obs = None

    def _require_unchanged(self, plan: SourcePlan) -> None:
        if input_stamp(self._folder / plan.path) != plan.stamp:
            raise InputError(
                f"{plan.path}: the file was changed while the store was being built. Build again when it is finished."
            )


class _Shards:
    """The shards of a task, one after the other; the one that is being filled."""

    def __init__(
        self, ingestion: Ingestion, plan: SourcePlan, task: Task, source: Source, *, start: int, number: int
    ) -> None:
        self._ingestion = ingestion
        self._plan = plan
        self._task = task
        self._obs = cell_table(plan, ingestion.obs_of(source), source.origins(), start, task.stop)
        self._first = start
        self._number = number
        options, schema = ingestion.plan.options, ingestion.plan.obs_schema
        self.admission = Admission(
            position_of=ingestion.storage_of[plan.target].astype(np.int32),
            hashes=ingestion.hashes,
            classes=plan.classes,
            filtered=FilteredObs.of(options.filters, self._obs, schema, first=start),
            allow_rounding=options.allow_rounding,
            known=known_facts(source),
            head=ingestion.head,
            threads=ingestion.threads,
        )
        self._begin(start)

    def _begin(self, start: int) -> None:
        n_genes = len(self._ingestion.plan.order)
        self._start = self._stop = start
        self._writer = ShardWriter(self._ingestion.desk / "shard.cells", n_genes=n_genes)
        self._detected = np.zeros(n_genes, dtype=np.int64)
        self._umi = np.zeros(self._plan.n_genes)
        self._largest = 0
        self._merged = 0
        self._tally = Tally()
        self._rows: list[npt.NDArray[np.int64]] = []
        self._measured: list[dict[str, npt.NDArray[Any]]] = []

    @property
    def rows_left(self) -> int:
        """Rows up to the next one at which a shard begins in any case."""
        rows = self._ingestion.plan.options.shard_cells
        return rows - self._stop % rows

    def fitting(self, cells: IngestedCells) -> int:
        """Return how many cells of a block go into this shard: up to the one that fills it, however blocks are cut."""
        room = self._ingestion.plan.options.shard_bytes - self._writer.frames_bytes
        return min(cells.n_cells, int(np.searchsorted(cells.offsets[1:], np.uint64(max(0, room)))) + 1)

    def add(self, admitted: Admitted, *, stop: int) -> None:
        """Write what is taken of a block, whose last row is `stop` - 1; finishes the shard where it is full."""
        cells = admitted.cells
        self._writer.append(cells.frames, cells.offsets, nnz=cells.nnz)
        self._detected += cells.cells_per_gene
        self._umi += cells.umi_per_source_gene
        self._largest = max(self._largest, cells.largest)
        self._merged += cells.merged
        self._tally += admitted.tally
        measured: dict[str, npt.NDArray[Any]] = {"fingerprint": cells.fingerprints, **admitted.facts.columns()}
        self._measured.append(measured | {"stored_counts": cells.totals, "n_genes_stored": cells.detected})
        self._rows.append(admitted.rows)
        self._stop = stop
        options = self._ingestion.plan.options
        if stop % options.shard_cells == 0 or self._writer.frames_bytes >= options.shard_bytes:
            self.close()

    def close(self) -> None:
        """Finish the shard and its obs, and keep them; nothing happens when it has no rows."""
        if self._stop == self._start:
            return
        if self._writer.n_cells:
            shard = self._finished_shard()
        else:
            shard = None
            self._writer.abandon()
        record = ShardRecord(
            source=self._task.source,
            stop=self._stop,
            shard=shard,
            arrays={"detected": self._detected, "umi": self._umi},
            largest=self._largest,
            merged=self._merged,
            tally=self._tally,
        )
        self._ingestion.pieces.keep(self._ingestion.desk, self._task.key, self._number, record.to_entry())
        self._number += 1
        self._begin(self._stop)

    def _finished_shard(self) -> ShardEntry:
        desk, n_cells, nnz = self._ingestion.desk, self._writer.n_cells, self._writer.nnz
        obs = self._shard_obs()
        write_obs(obs, desk / "shard.parquet")
        return ShardEntry(
            cells=replace(self._writer.finish(), path="shard.cells"),
            obs=file_entry(desk, "shard.parquet"),
            uids=write_uids(desk, "shard.uids", obs.column("uid").to_numpy()),
            n_cells=n_cells,
            nnz=nnz,
            source=self._plan.name,
        )

    def abandon(self) -> None:
        """Remove a shard that was not finished."""
        self._writer.abandon()

    def _shard_obs(self) -> pa.Table:
        own = self._obs.take(pa.array(np.concatenate(self._rows) - self._first))
        for name in self._measured[0]:
            own = own.append_column(name, pa.array(np.concatenate([part[name] for part in self._measured])))
        columns = [*STANDARD_COLUMNS, *FACT_COLUMNS, *(new for _, new, _ in self._plan.obs_names)]
        kinds = dict(self._ingestion.plan.obs_schema)  # of all sources: files of one type are read without casts
        return cast_obs(own.select(columns), [(name, kinds[name]) for name in columns])


def _rows_of(block: CountBlock, begin: int, end: int) -> CountBlock:
    if (begin, end) == (0, block.n_cells):
        return block
    entries = slice(int(block.indptr[begin]), int(block.indptr[end]))
    indptr = block.indptr[begin : end + 1] - block.indptr[begin]
    return CountBlock(block.start + begin, indptr, block.indices[entries], block.data[entries], block.n_genes)
