"""Carrying out a build (floor 4): plan, shards, manifest, in a place that only one process writes to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellmill.genes import Vocabulary
from cellmill.ingest.about import read_about
from cellmill.ingest.execute import Means, carry_out
from cellmill.ingest.fetch import fetch_inputs
from cellmill.ingest.finish import finish
from cellmill.ingest.obs_map import ObsMap
from cellmill.ingest.options import BuildOptions, check_policy, memory_bytes_of, scratch_of
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.planning import plan_build
from cellmill.ingest.store_source import require_other_store
from cellmill.ingest.tasks import cut
from cellmill.storage import require_free_bytes
from cellmill.storage.urls import refuse_url
from cellmill.store import Store, open_store
from cellmill.store.staging import Staging, check_target, writing_told

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["build", "write_store"]


def build(
    path: str | Path,
    inputs: Sequence[str | Path] | str | Path,
    *,
    vocabulary: str | Path | Vocabulary | None = None,
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
    workers: int | None = None,
    dask: str | Client | None = None,
    shard_cells: int = 200_000,
    block_cells: int = 4096,
    memory: str | int | None = None,
    scratch: str | Path | None = None,
    duplicates: bool = True,
    downloads: str | Path | None = None,
    keep_downloads: bool = True,
) -> Store:
    """Build a store from count matrices and return it, open.

    Every stored value is proven to be a raw count; genes are resolved to one vocabulary; what is dropped, merged or
    renamed is counted in the store's reports. Interrupted at any moment, the same call goes on where it stopped, also
    with other `workers` or `dask`.

    Parameters
    ----------
    path
        Folder of the new store, by custom `NAME.mill`. It appears when it is complete, not before.
    inputs
        Files and folders of every kind in the how-to "Inputs", folders of these, patterns, other stores, and URLs of
        files (https, s3, gs), which are fetched first.
    vocabulary
        "human", "mouse" (shipped; recognised from the ids when None), "union" (the files' own ids, as they are), a
        `Vocabulary`, or the path of its JSON.
    counts
        Where each file's raw counts are: "X", "raw", "layers/NAME", or "auto" for the one matrix that is proven raw.
    min_match
        Share of a file's genes that must be found in the vocabulary.
    rename
        New names of obs columns, for instance {"Celltype": "cell_type"}.
    obs_map
        A mapping file, or the same as plain data: for each pattern of inputs the columns of obs that are made, with
        tables of values, constants, types and ontology terms (docs/how-to/labels.md).
    dataset_name
        Name of the datasets, of which uids are made; "{name}" stands for the name of each file.
    skip_bad
        Leave out inputs that cannot be used, listed in the store's reports, instead of stopping.
    format
        One of `cellmill.sources.FORMATS`, where the guess from the contents is not wanted.
    allow_rounding
        Largest distance from a whole number at which a value is rounded to it, for example 1e-3; how many were is in
        the source's report. Nothing is rounded by default.
    where
        Only cells for which this SQL condition over obs holds, facts of whole cells included.
    min_counts, min_genes
        Only cells with so many counts, and genes with a count; over all genes of the file.
    max_mito
        Only cells of which no larger share of counts is mitochondrial; where a file measured no such gene, all.
    min_cells_per_gene
        Leave out genes that fewer of the taken cells have a count of, all inputs together; they are read twice for it.
    about
        YAML file of licence, DOI, release and citation of inputs by pattern (`ingest.about.read_about`); each
        source's report keeps what is said of it.
    overwrite
        Replace a store that lies at `path`, at the end.
    threads
        Threads of the kernel, shared by all workers; 0 for all cores.
    workers
        Processes of this machine; None: one where there is little to do. The bytes of the store do not depend on it.
    dask
        Address of a Dask scheduler, or a client of one, whose workers see the inputs and the folder of the store
        under the same names (extra `dask`).
    shard_cells
        Most cells in a shard.
    block_cells
        Cells read at once; memory grows with it.
    memory
        Memory for sorting an input by cell that is not stored so (CSC, dense in tall chunks, Matrix Market), in each
        process: bytes, or a text such as "2 GiB"; 256 MiB when None. What takes more goes through files in `scratch`.
        The bytes of the store do not depend on it.
    scratch
        Folder for those files, and for what archives are unpacked into; the system's temporary folder (TMPDIR) when
        None. With `dask`, one of that name on each machine.
    duplicates
        Look for equal cells at the end, among all cells of the store (`store.duplicates`).
    downloads
        Folder for files fetched from URLs; one in the cache when None.
    keep_downloads
        Keep them when the store is finished, so that another build need not fetch them again.

    Raises
    ------
    InputError
        For inputs that cannot be used: not found, not raw, genes unknown, damaged. The others are worked on first, and
        what is finished of them is kept for the next call; where several cannot be used, all are listed.
    StoreExistsError
        When something lies at `path` and `overwrite` is not set.
    StoreLockedError
        When another process is building the same store.
    DiskSpaceError
        When there is not enough room, before work starts or in the middle of it; finished work is kept.

    Examples
    --------
    >>> store = build("atlas.mill", ["a.h5ad", "b.h5"])  # doctest: +SKIP
    """
    refuse_url(path, what="build")
    means = Means(threads=threads, workers=workers, dask=dask)
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    check_target(target, overwrite=overwrite)
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
    check_policy(options, vocabulary)
    fetched = fetch_inputs(listed, downloads=downloads, skip_bad=skip_bad)
    with fetched.named():
        plan = plan_build(fetched.inputs, vocabulary=vocabulary, options=options, fetched=fetched)
    require_other_store(target, [source.path for source in plan.sources])
    require_free_bytes(target, plan.estimated_bytes, what="the store")
    with fetched.named(), writing_told(target, plan.estimated_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        with Staging.locked(target) as staging:
            check_target(target, overwrite=overwrite)  # another build may have come first since
            write_store(plan, staging, means)
            staging.publish()
    fetched.finish(keep=keep_downloads)
    return open_store(target)


def write_store(plan: BuildPlan, staging: Staging, means: Means) -> None:
    """Write all of a plan that is not finished yet, the manifest last; the caller publishes it."""
    started = time.time()
    tasks = cut(plan)
    pieces = staging.prepare_pieces([task.key for task in tasks])
    failed = carry_out(plan, pieces, tasks, means)
    finish(plan, staging, pieces, tasks, failed, started=started)
