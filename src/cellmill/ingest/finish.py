"""From the pieces of all tasks to the store (floor 4): in the order of the plan, whoever wrote them and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellmill.errors import CellmillError
from cellmill.ingest.conclude import conclude
from cellmill.ingest.failures import Refused, stop_for
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan
from cellmill.ingest.shards import ShardRecord, digest_note
from cellmill.ingest.tasks import Task
from cellmill.sources.archive import file_behind
from cellmill.storage import hash_file
from cellmill.store.pieces import Pieces
from cellmill.store.staging import Staging

__all__ = ["finish", "is_finished"]


def is_finished(pieces: Pieces, task: Task) -> bool:
    """Whether all rows of a task are done."""
    finished = pieces.finished(task.key)
    return bool(finished) and finished[-1].facts["stop"] >= task.stop


def finish(
    plan: BuildPlan,
    staging: Staging,
    pieces: Pieces,
    tasks: Sequence[Task],
    failed: Mapping[int, CellmillError],
    *,
    started: float,
) -> None:
    """Put the pieces together and write the manifest; the caller publishes it.

    Parameters
    ----------
    failed
        Inputs, by their numbers, that cannot be used.

    Raises
    ------
    InputError
        When there are inputs that cannot be used, in the plan or among `failed`, and they are not to be left out.
    """
    late = [Refused(plan.sources[number].path, error) for number, error in sorted(failed.items())]
    bad = [*plan.refused, *late]
    if bad and not plan.options.skip_bad:
        kept = any(pieces.finished(task.key) for task in tasks if task.source not in failed)
        raise stop_for(bad, n_inputs=len(plan.sources) + len(plan.refused), kept=kept)
    records = [
        ShardRecord.from_entry(entry, source=task.source)
        for task in tasks
        if task.source not in failed
        for entry in pieces.finished(task.key)
    ]
    placed = iter(pieces.assemble([record.shard for record in records if record.shard], first=plan.first_shard))
    records = [replace(record, shard=next(placed)) if record.shard else record for record in records]
    skipped = [*plan.skipped, *(Skipped(one.path, str(one.error)) for one in late)]

    def digest_of(source: SourcePlan) -> str:
        noted = pieces.noted(digest_note(source))
        return str(noted["xxh3"]) if noted else hash_file(file_behind(source.path))

    conclude(plan, staging, records, skipped, digest_of=digest_of, started=started)
