"""A build by hand (floor 4): every part by a process that somebody starts, as the jobs of an array, then one commit.

All parts make the same plan from the same call, which is kept beside the pieces; the commit makes it again and puts
together what the parts have written. Nobody talks to anybody: what they share is a file system.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellmill.errors import CellmillError, InputError, NotFoundError, StateMismatchError
from cellmill.events import emit
from cellmill.ingest.about import About, read_about
from cellmill.ingest.execute import Means, carry_out
from cellmill.ingest.failures import Refused, as_error, as_text, stop_for
from cellmill.ingest.finish import finish, is_finished
from cellmill.ingest.obs_map import ObsMap
from cellmill.ingest.options import BuildOptions, memory_bytes_of, scratch_of
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.planning import plan_build
from cellmill.ingest.tasks import Task, cut, part_of
from cellmill.storage import require_free_bytes
from cellmill.storage.urls import refuse_url
from cellmill.store import Store, open_store
from cellmill.store.pieces import Pieces
from cellmill.store.staging import Staging, check_target, writing_told

__all__ = ["PartDone", "build_part", "commit"]


@dataclass(frozen=True)
class PartDone:
    """What a part of a build has done.

    Attributes
    ----------
    part, n_parts : int
        Which part, counted from 1, of how many.
    tasks, n_cells : int
        Tasks of the part and the cells in them, finished before or now.
    n_tasks : int
        Tasks of the whole build.
    """

    part: int
    n_parts: int
    tasks: int
    n_tasks: int
    n_cells: int


@dataclass(frozen=True)
class _Call:
    """What was asked for, as it is kept for the commit; `key` is that of the plan that came of it."""

    inputs: tuple[str, ...]
    folder: str
    vocabulary: str | None
    options: dict[str, Any]
    overwrite: bool
    key: str
    n_parts: int

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> _Call:
        body: dict[str, Any] = json.loads(raw)
        body["inputs"] = tuple(body["inputs"])
        return cls(**body)

    def plan(self) -> BuildPlan:
        """Make the plan again."""
        options = dict(self.options)
        options["rename"] = tuple(tuple(pair) for pair in options["rename"])
        options["obs_map"] = ObsMap.of(options["obs_map"])
        options["about"] = About.from_dict(options["about"]) if options.get("about") else None
        return plan_build(self.inputs, vocabulary=self.vocabulary, options=BuildOptions(**options))


def build_part(
    path: str | Path,
    inputs: Sequence[str | Path] | str | Path,
    *,
    part: tuple[int, int],
    vocabulary: str | Path | None = None,
    counts: str = "X",
    min_match: float = 0.6,
    rename: Mapping[str, str] | None = None,
    obs_map: Mapping[str, Any] | str | Path | ObsMap | None = None,
    dataset_name: str | None = None,
    skip_bad: bool = False,
    format: str | None = None,
    allow_rounding: float = 0.0,
    where: str | None = None,
    min_counts: int = 0,
    min_genes: int = 0,
    max_mito: float | None = None,
    min_cells_per_gene: int = 0,
    about: str | Path | None = None,
    overwrite: bool = False,
    threads: int = 0,
    workers: int | None = 1,
    shard_cells: int = 200_000,
    block_cells: int = 4096,
    memory: str | int | None = None,
    scratch: str | Path | None = None,
    duplicates: bool = True,
) -> PartDone:
    """Do one part of a build; `commit` makes the store when all parts are done.

    The parts may run at any time, at the same time, on any machine that sees the same files under the same names, and
    again: what is finished is not done twice.

    Parameters
    ----------
    path
        Folder of the new store; it appears with the commit.
    part
        (i, n): the part i, from 1, of n.
    inputs, vocabulary, counts, min_match, rename, obs_map, dataset_name, skip_bad, format, about,
    allow_rounding, where, min_counts, min_genes, max_mito, min_cells_per_gene, overwrite, shard_cells,
    block_cells, memory, scratch, duplicates
        As in `cellmill.build`, and the same for all parts.
    threads, workers
        As in `cellmill.build`, of this part.

    Raises
    ------
    InputError
        For inputs of this part that cannot be used; the others are worked on first.
    StateMismatchError
        When other parts that are running were asked for something else.
    StoreLockedError
        When another process builds the same store, or commits.

    Examples
    --------
    >>> build_part("atlas.mill", ["a.h5ad", "b.h5"], part=(1, 8))  # doctest: +SKIP
    """
    refuse_url(path, what="build")
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    check_target(target, overwrite=overwrite)
    means = Means(threads=threads, workers=workers)
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    options = BuildOptions(
        counts=counts,
        min_match=min_match,
        rename=tuple(sorted((rename or {}).items())),
        obs_map=ObsMap.of(obs_map),
        dataset_name=dataset_name,
        skip_bad=skip_bad,
        format=format,
        about=None if about is None else read_about(about),
        shard_cells=shard_cells,
        block_cells=block_cells,
        allow_rounding=allow_rounding,
        where=where,
        min_counts=min_counts,
        min_genes=min_genes,
        max_mito=max_mito,
        min_cells_per_gene=min_cells_per_gene,
        duplicates=duplicates,
        memory_bytes=memory_bytes_of(memory),
        scratch=scratch_of(scratch),
    )
    part_of((), *part)  # refuses what is no part before the inputs are opened
    plan = plan_build(listed, vocabulary=vocabulary, options=options)
    call = _Call(
        inputs=tuple(map(str, listed)),
        folder=str(Path.cwd()),
        vocabulary=None if vocabulary is None else str(vocabulary),
        options={**asdict(options), "obs_map": options.obs_map and options.obs_map.to_plain()},
        overwrite=overwrite,
        key=plan.key,
        n_parts=part[1],
    )
    return _do_part(target, plan, call, part, means)


def _do_part(target: Path, plan: BuildPlan, call: _Call, part: tuple[int, int], means: Means) -> PartDone:
    tasks = cut(plan)
    own = part_of(tasks, *part)

    def make_ready(staging: Staging) -> None:
        check_target(target, overwrite=call.overwrite)
        staging.prepare_pieces([task.key for task in tasks])
        staging.remember_call(call.to_json())

    require_free_bytes(target, plan.estimated_bytes // part[1], what=f"part {part[0]} of {part[1]} of the store")
    with writing_told(target, plan.estimated_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        with Staging.joined(target, make_ready) as staging:
            _require_same(target, staging, call)
            pieces = Pieces(staging.place)
            failed = carry_out(plan, pieces, own, means)
            for task in own:
                _note_failure(pieces, plan, task, failed.get(task.source))
    bad = [*plan.refused, *(Refused(plan.sources[number].path, error) for number, error in sorted(failed.items()))]
    if bad and not plan.options.skip_bad:
        raise stop_for(bad, n_inputs=len(plan.sources) + len(plan.refused), kept=len(own) > 0)
    return PartDone(*part, len(own), len(tasks), sum(task.n_cells for task in own))


def _require_same(target: Path, staging: Staging, call: _Call) -> None:
    raw = staging.call
    if raw is None or _Call.from_json(raw).key != call.key:
        raise StateMismatchError(
            f"{target}: other parts of this build are running, of other inputs or with other options, or an input has "
            "changed since they began. Give all parts the same arguments, and let those that run come to their end."
        )


def _note_failure(pieces: Pieces, plan: BuildPlan, task: Task, error: CellmillError | None) -> None:
    """Keep for the commit that an input of this part cannot be used, or forget it where it now could be."""
    name = _failure_note(task)
    if error is None or is_finished(pieces, task):
        pieces.forget_note(name)
    else:
        pieces.note(name, dict(zip(("kind", "message"), as_text(error), strict=True)))


def _failure_note(task: Task) -> str:
    return f"bad-{task.key}"


def commit(path: str | Path, *, skip_bad: bool = False) -> Store:
    """Put the parts of a build together and return the store, open.

    Parameters
    ----------
    path
        The folder that the parts were given.
    skip_bad
        Leave out inputs that turned out not to be usable, also where the parts were not told to.

    Raises
    ------
    NotFoundError
        When no part of such a store was built.
    InputError
        When parts are missing, which are named; or for inputs that cannot be used, all of which are listed.
    StateMismatchError
        When an input has changed since the parts were built.
    StoreLockedError
        When parts are still running.

    Examples
    --------
    >>> store = commit("atlas.mill")  # doctest: +SKIP
    """
    refuse_url(path, what="commit")
    started = time.time()
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    if not Staging.folder_of(target).exists():
        raise _nothing_to_commit(target)
    with writing_told(target), Staging.locked(target) as staging:
        raw = staging.call
        if raw is None:
            raise _nothing_to_commit(target)
        call = _Call.from_json(raw)
        check_target(target, overwrite=call.overwrite)
        _require_folder(call)
        if skip_bad:
            call.options["skip_bad"] = True
        plan = call.plan()
        if plan.key != call.key:
            raise StateMismatchError(
                f"{target}: an input has changed since the parts were built. Build the parts again: what has not "
                "changed is not done twice."
            )
        tasks = cut(plan)
        pieces = staging.prepare_pieces([task.key for task in tasks])
        emit("committing", message=f"putting {len(tasks)} tasks together")
        failed = _failures(pieces, tasks)
        _require_all(target, plan, pieces, tasks, failed, n_parts=call.n_parts)
        finish(plan, staging, pieces, tasks, failed, started=started)
        staging.publish()
    return open_store(target)


def _nothing_to_commit(target: Path) -> CellmillError:
    if target.exists():
        return InputError(f"{target}: nothing is left to commit; the store is there, see `cellmill info {target}`")
    return NotFoundError(
        f"{target}: no part of such a store was built. First `cellmill build {target} INPUT... --task 1/N` and so on "
        "to N/N, then `cellmill commit`; in a build without --task nothing is to commit."
    )


def _require_folder(call: _Call) -> None:
    """Paths of inputs are named in the store as they were given, and so must be given from the same folder."""
    relative = [one for one in call.inputs if not os.path.isabs(os.path.expanduser(one))]  # noqa: PTH117, PTH111 - patterns
    if relative and Path(call.folder).resolve() != Path.cwd().resolve():
        raise InputError(
            f"the parts were built in {call.folder}, from which {relative[0]!r} was seen: commit there, or give the "
            "parts absolute paths."
        )


def _failures(pieces: Pieces, tasks: Sequence[Task]) -> dict[int, CellmillError]:
    found: dict[int, CellmillError] = {}
    for task in tasks:
        noted = pieces.noted(_failure_note(task))
        if noted and task.source not in found:
            found[task.source] = as_error(noted["kind"], noted["message"])
    return found


def _require_all(
    target: Path,
    plan: BuildPlan,
    pieces: Pieces,
    tasks: Sequence[Task],
    failed: Mapping[int, CellmillError],
    *,
    n_parts: int,
) -> None:
    missing = {task.number for task in tasks if task.source not in failed and not is_finished(pieces, task)}
    if not missing:
        return
    lines = []
    for part in range(1, n_parts + 1):
        own = [task for task in part_of(tasks, part, n_parts) if task.number in missing]
        if own:
            first = own[0]
            more = f" and {len(own) - 1} more" if len(own) > 1 else ""
            where = f"rows {first.start} to {first.stop} of {plan.sources[first.source].path}"
            lines.append(f"  --task {part}/{n_parts}: {where}{more}")
    raise InputError(
        f"{target}: {len(missing)} of {len(tasks)} tasks are not finished:\n" + "\n".join(lines) + "\n"
        "Run these parts (again), then commit; what is finished is kept."
    )
