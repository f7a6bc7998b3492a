"""Carrying out a build (floor 4): plan, shards, manifest, in a place that only one process writes to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellmill.genes import Vocabulary
from cellmill.ingest.conclude import conclude
from cellmill.ingest.digests import Digests
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.planning import plan_build
from cellmill.ingest.shards import Ingestion
from cellmill.storage import require_free_bytes
from cellmill.storage.urls import refuse_url
from cellmill.store import Store, open_store
from cellmill.store.staging import Staging, check_target, writing_told

__all__ = ["build", "write_store"]


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
        Files (h5ad, 10x HDF5, CSV or TSV), Matrix Market folders, folders of these, or patterns.
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
        One of `cellmill.sources.FORMATS`, where the guess from the contents is not wanted.
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
    refuse_url(path, what="build")
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    check_target(target, overwrite=overwrite)
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
    with writing_told(target, plan.estimated_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        with Staging.locked(target) as staging:
            check_target(target, overwrite=overwrite)  # another build may have come first since
            write_store(plan, staging, threads=threads)
            staging.publish()
    return open_store(target)


def write_store(plan: BuildPlan, staging: Staging, *, threads: int) -> None:
    """Write all of a plan that is not finished yet, the manifest last; the caller publishes it."""
    started = time.time()
    with Digests() as digests:
        ingestion = Ingestion(plan, staging, digests, threads=threads)
        records = ingestion.run()
        conclude(plan, staging, records, ingestion.skipped, digest_of=digests.of, started=started)
