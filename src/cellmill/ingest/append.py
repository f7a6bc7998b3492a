"""Adding inputs to a store (floor 4): planned by its vocabulary and genes, carried out as a build is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellmill.events import emit
from cellmill.ingest.about import read_about
from cellmill.ingest.base import Base
from cellmill.ingest.execute import Means
from cellmill.ingest.fetch import Fetched, fetch_inputs
from cellmill.ingest.obs_map import ObsMap
from cellmill.ingest.options import BuildOptions, check_policy, memory_bytes_of, scratch_of
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.planning import plan_build
from cellmill.ingest.run import write_store
from cellmill.ingest.store_source import require_other_store
from cellmill.storage import require_free_bytes
from cellmill.storage.urls import refuse_url
from cellmill.store import Store, open_store
from cellmill.store.staging import Staging, writing_told

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["append_inputs", "plan_append"]


def append_inputs(
    path: str | Path,
    inputs: Sequence[str | Path] | str | Path,
    *,
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
    """Add the cells of count matrices to a store and return it, open.

    Nothing that the store has is written anew: its cells keep their row ids, and readers that have it open go on with
    what they opened. Genes are resolved to the store's own vocabulary; those that it has not measured yet come after
    the others. The store is the old one until all is finished, and then the new one; interrupted at any moment, the
    same call goes on where it stopped.

    Parameters
    ----------
    path
        The store.
    inputs
        As in `cellmill.build`.
    counts, min_match, rename, obs_map, dataset_name, skip_bad, format, about, allow_rounding, where,
    min_counts, min_genes, max_mito, min_cells_per_gene, threads, workers, dask, shard_cells, block_cells,
    memory, scratch, duplicates, downloads, keep_downloads
        As in `cellmill.build`. With `skip_bad`, and when the store has all that can be used already, it stays as it is.

    Raises
    ------
    InputError
        For inputs that cannot be used: not found, not raw, genes unknown, damaged; a dataset that the store has; with
        a store of the "union" vocabulary, genes that no input of it had.
    NotFoundError
        When there is no store at `path`.
    StoreLockedError
        When another process is writing to the same store.
    DiskSpaceError
        When there is not enough room, before work starts.

    Examples
    --------
    >>> store = append_inputs("atlas.mill", ["c.h5ad"])  # doctest: +SKIP
    """
    refuse_url(path, what="append")
    means = Means(threads=threads, workers=workers, dask=dask)
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    open_store(target)  # says what is wrong before anything is made beside it
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
    check_policy(options, None)
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    fetched = fetch_inputs(listed, downloads=downloads, skip_bad=skip_bad)
    # under the lock from the start: what is planned depends on what the store has
    with fetched.named(), writing_told(target), Staging.locked(target) as staging:
        plan = plan_append(target, fetched.inputs, options=options, fetched=fetched)
        if not plan.sources:  # all of them left out, as asked for
            emit("nothing new", message=f"nothing is new: {target} stays as it is")
            return open_store(target)
        require_other_store(target, [source.path for source in plan.sources])
        require_free_bytes(target, plan.estimated_bytes, what="what is added to the store")
        with writing_told(target, plan.estimated_bytes):
            write_store(plan, staging, means)
            staging.add()
    fetched.finish(keep=keep_downloads)
    return open_store(target)


def plan_append(
    path: str | Path,
    inputs: Sequence[str | Path] | str | Path,
    *,
    options: BuildOptions | None = None,
    fetched: Fetched | None = None,
) -> BuildPlan:
    """Plan what `append_inputs` would do.

    Raises
    ------
    InputError
        For an input that cannot be used (unless `options.skip_bad`), naming it and the remedy.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    return plan_build(listed, options=options, base=Base.of(open_store(path)), fetched=fetched)
