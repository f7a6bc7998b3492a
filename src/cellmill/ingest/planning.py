"""Making the plan of a build (floor 4): every input opened, genes aligned and ordered, obs unified; nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from cellmill.errors import CellmillError, ConfigError, DiskSpaceError, InputError
from cellmill.events import emit
from cellmill.genes import Vocabulary
from cellmill.ingest.aligning import AlignedGenes, GeneAligner
from cellmill.ingest.base import Base
from cellmill.ingest.candidates import Candidate, Candidates
from cellmill.ingest.cautions import cautions_of
from cellmill.ingest.clashes import InputColumns, require_one_type, widened
from cellmill.ingest.failures import Refused, is_about_input, stop_for
from cellmill.ingest.fetch import Fetched
from cellmill.ingest.filters import check_where
from cellmill.ingest.gene_minimum import count_detected, often_detected
from cellmill.ingest.gene_order import head_model, storage_order
from cellmill.ingest.obs_mapping import MappedObs, map_obs
from cellmill.ingest.options import BuildOptions, check_policy
from cellmill.ingest.orientation import require_upright
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan, input_stamp
from cellmill.ingest.progress import tell_refused
from cellmill.ingest.schema import check_renames, dataset_names, obs_columns_of, unified_schema
from cellmill.ingest.species import choose_vocabulary
from cellmill.ingest.store_source import hint_at_merge, require_distinct_datasets
from cellmill.sources import find_inputs
from cellmill.sources.download import recorded_url
from cellmill.storage.urls import is_url

__all__ = ["plan_build"]

T = TypeVar("T")


def plan_build(
    inputs: Sequence[str | Path],
    *,
    vocabulary: str | Path | Vocabulary | None = None,
    options: BuildOptions | None = None,
    base: Base | None = None,
    fetched: Fetched | None = None,
) -> BuildPlan:
    """Plan a build: open every input, choose matrices, align genes, order them, unify obs.

    With `base`, a store to add to, its vocabulary, genes, datasets and columns are given. `fetched` says which of the
    inputs came from URLs, and which URLs are left out.

    Raises
    ------
    InputError
        When no input can be used, or what is asked for cannot be meant. Where only some inputs cannot be used, they are
        in `skipped` (with `options.skip_bad`) or `refused`.
    """
    options = options or BuildOptions()
    guard = _Guard(skip=options.skip_bad)
    with guard.told_beside():
        return _planned(inputs, vocabulary, options, base, fetched or Fetched(tuple(inputs)), guard)


def _planned(
    inputs: Sequence[str | Path],
    vocabulary: str | Path | Vocabulary | None,
    options: BuildOptions,
    base: Base | None,
    fetched: Fetched,
    guard: _Guard,
) -> BuildPlan:
    check_policy(options, vocabulary)
    if urls := [str(one) for one in inputs if is_url(one)]:
        raise ConfigError(
            f"{recorded_url(urls[0])}: a file behind a URL is fetched by `cellmill build` and `append`, not for a "
            "part of a build; fetch it first, and name the file"
        )
    # with all of them skipped, those are to be told, not that there is no input
    look = inputs or not fetched.skipped
    paths, passed = find_inputs(inputs, keep_unusable=options.skip_bad) if look else ([], [])
    guard.n_inputs = len(paths)
    if options.about:
        options.about.check(paths)
    looked_at = Candidates(options, n_inputs=len(paths))
    found = [guard(path, partial(looked_at.open, path)) for path in paths]
    candidates = [candidate for candidate in found if candidate is not None]
    if vocabulary == "union" and not base:
        upright = [guard(one.source.path, partial(require_upright, one)) for one in candidates]
        candidates = [candidate for candidate in upright if candidate is not None]
    if base:
        chosen, chosen_name, table = base.vocabulary, base.manifest.vocabulary_name, base.table
    elif candidates:
        chosen, chosen_name, table = choose_vocabulary(vocabulary, candidates, skip_bad=options.skip_bad)
    else:
        chosen, chosen_name, table = Vocabulary([]), "", None
    aligner = GeneAligner(chosen, table, min_match=options.min_match)
    aligned = [
        (candidate, genes)
        for candidate in candidates
        if (genes := guard(candidate.source.path, partial(_align, candidate, aligner, base)))
    ]
    mapped: dict[Path, MappedObs] = {}
    for candidate, _ in aligned:
        path = candidate.source.path
        if (found_obs := guard(path, partial(map_obs, candidate.source, options.obs_map))) is not None:
            mapped[path] = found_obs
        candidate.source.release()  # thousands of open files would be a gigabyte, and more than a process may have
    aligned = [pair for pair in aligned if pair[0].source.path in mapped]
    sources = [candidate.source for candidate, _ in aligned]
    names = dataset_names(sources, given=options.dataset_name, obs_map=options.obs_map)
    n_known = 0
    if base:
        kept = [
            guard(candidate.source.path, partial(base.require_new, name, candidate.source.path))
            for (candidate, _), name in zip(aligned, names, strict=True)
        ]
        n_known = kept.count(None)
        aligned = [pair for pair, name in zip(aligned, kept, strict=True) if name]
        names = [name for name in kept if name]
    if base and n_known and not aligned and options.skip_bad:
        return _nothing_new(base, guard.refused, fetched, options)
    require_distinct_datasets([c.source for c, _ in aligned], names, base.datasets if base else ())
    if not aligned:
        raise _nothing_left(guard.refused, fetched, n_inputs=len(paths), skip=options.skip_bad)
    old_columns = base.obs_columns if base else ()
    spelling = {name.casefold(): name for name, _, _ in old_columns}
    tables = {path: one.table for path, one in mapped.items()}
    columns = [
        InputColumns(
            path, tables[path], obs_columns_of(tables[path], dict(options.rename), spelling, where=path), origin
        )
        for path, origin in ((c.source.path, mapped[c.source.path].origin) for c, _ in aligned)
    ]
    check_renames(options.rename, [one.table for one in columns])
    require_one_type(columns, base)
    obs_names = [one.names for one in columns]
    schema = unified_schema([old_columns, *obs_names])
    plans = tuple(
        _source_plan(candidate, genes, name, own, options, mapped[candidate.source.path], dict(schema), fetched)
        for (candidate, genes), name, own in zip(aligned, names, obs_names, strict=True)
    )
    _tell_unused(options, paths)
    if options.where is not None:
        check_where(options.where, schema)
    n_rare = 0
    order = storage_order([(c, genes.alignment.target) for c, genes in aligned], n_vocabulary=len(chosen))
    if base:
        order = order[~np.isin(order, base.order)]
    if options.min_cells_per_gene:
        counted = [
            guard(candidate.source.path, partial(count_detected, candidate, plan, chosen, schema, options))
            for (candidate, _), plan in zip(aligned, plans, strict=True)
        ]
        aligned, plans = _counted_ones(aligned, counted), tuple(_counted_ones(plans, counted))
        if not aligned:
            raise _nothing_left(guard.refused, fetched, n_inputs=len(paths), skip=options.skip_bad)
        often = often_detected(order, counted, least=options.min_cells_per_gene, needed=base is None)
        order, n_rare = often, len(order) - len(often)
    if base:
        order = np.concatenate([base.order, order])
    head = (
        base.head
        if base
        else head_model([(c, genes.alignment) for c, genes in aligned], order, n_vocabulary=len(chosen))
    )
    hint_at_merge([candidate.source for candidate, _ in aligned], chosen)
    for candidate in candidates:
        candidate.source.close()
    left_out = tuple(Skipped(one.path, str(one.error)) for one in guard.refused) if options.skip_bad else ()
    skipped = (*fetched.skipped, *left_out)
    refused = () if options.skip_bad else tuple(guard.refused)
    return BuildPlan(
        plans, skipped, chosen, chosen_name, order, schema, options, base, head, refused, n_rare, tuple(passed)
    )


def _counted_ones(items: Sequence[T], counted: Sequence[object | None]) -> list[T]:
    return [item for item, count in zip(items, counted, strict=True) if count is not None]


def _nothing_new(base: Base, refused: Sequence[Refused], fetched: Fetched, options: BuildOptions) -> BuildPlan:
    """Plan nothing, since the store has the inputs already."""
    skipped = (*fetched.skipped, *(Skipped(one.path, str(one.error)) for one in refused))
    schema = unified_schema([base.obs_columns])
    name = base.manifest.vocabulary_name
    return BuildPlan((), skipped, base.vocabulary, name, base.order, schema, options, base, base.head)


def _nothing_left(refused: Sequence[Refused], fetched: Fetched, *, n_inputs: int, skip: bool) -> CellmillError:
    if refused and not skip:
        return stop_for(refused, n_inputs=n_inputs, kept=False)
    reasons = [(one.path, one.reason) for one in fetched.skipped] + [(one.path, str(one.error)) for one in refused]
    listed = "\n".join(f"  {path}: {reason}" for path, reason in reasons)
    return InputError(f"no input is left to build from:\n{listed}")


class _Guard:
    """Runs a step for one input; an error of the input is kept, so that the others are looked at as well."""

    def __init__(self, *, skip: bool) -> None:
        self.refused: list[Refused] = []
        self.n_inputs = 0
        self._skip = skip

    def __call__(self, path: Path, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except DiskSpaceError:
            raise  # whatever is skipped: which cells a store has does not hang on how full a disk was
        except CellmillError as error:
            if not is_about_input(error) and not self._skip:
                raise
            self._keep(path, error)
        except OSError as error:
            told = InputError(f"{path}: cannot be read ({error.strerror or error})")
            told.__cause__ = error
            self._keep(path, told)
        return None

    def _keep(self, path: Path, error: CellmillError) -> None:
        self.refused.append(Refused(path, error))
        tell_refused(path, skip=self._skip, others=self.n_inputs > 1)

    @contextmanager
    def told_beside(self) -> Iterator[None]:
        """Let an error that ends the plan say what was found wrong with inputs before it."""
        try:
            yield
        except CellmillError as error:
            for one in self.refused:
                if str(one.path) not in str(error):
                    error.add_note(f"Besides: {one.error}")
            raise


def _align(candidate: Candidate, aligner: GeneAligner, base: Base | None) -> AlignedGenes:
    genes = candidate.source.genes_of(candidate.matrix)
    where = f"{candidate.source.path} ({candidate.matrix})"
    if base:
        base.require_known_genes(genes.ids, where)
    return aligner.align(genes, where)


def _tell_unused(options: BuildOptions, paths: Sequence[Path]) -> None:
    """Say which sources of the mapping file fit no input: a pattern may be misspelt, or meant for other files.

    Raises
    ------
    ConfigError
        When none fits any.
    """
    if options.obs_map is None:
        return
    unused = options.obs_map.unused(list(paths))
    if unused and len(unused) == len(options.obs_map.sources):
        raise ConfigError(
            f"the mapping file is for other files: none of its patterns ({'; '.join(unused)}) fits an input, of which "
            f"the first is {paths[0].absolute()}. Patterns are compared from the end of the path"
        )
    for patterns in unused:
        emit("obs mapping", message=f"the mapping for {patterns} fits no input")


def _source_plan(
    candidate: Candidate,
    aligned: AlignedGenes,
    name: str,
    columns: tuple[tuple[str, str, str], ...],
    options: BuildOptions,
    mapped: MappedObs,
    schema: dict[str, str],
    fetched: Fetched,
) -> SourcePlan:
    alignment = aligned.alignment
    source = candidate.source
    info = next(m for m in source.matrices() if m.name == candidate.matrix)
    genes = source.genes_of(candidate.matrix)
    judged = cautions_of(
        candidate, aligned.classes, [new for _, new, _ in columns], options.filters, matched=alignment.target >= 0
    )
    # Those of the source name its files; the name of the input stands before each warning already.
    warnings = (*source.cautions, *judged)
    for warning in warnings:
        emit(f"looking at {source.path.name}", message=f"warning: {source.path.name}: {warning}")
    renamed = [f"obs column {old!r} is called {new!r} here" for old, new, _ in columns if old != new]
    dropped = [f"{n} {what}" for what, n in source.dropped.items()]
    download = fetched.downloads.get(source.path)
    origin = [] if download is None else [str(download)]
    return SourcePlan(
        path=source.path,
        name=name,
        kind=source.kind,
        matrix=candidate.matrix,
        n_cells=info.n_cells,
        n_genes=info.n_genes,
        stored=info.stored,
        target=alignment.target,
        classes=aligned.classes,
        report=alignment.report,
        unmatched=tuple(genes.ids[int(i)] for i in np.flatnonzero(alignment.target < 0)),
        obs_names=columns,
        notes=(*origin, *source.remarks, *renamed, *widened(columns, schema), *dropped),
        stamp=input_stamp(source.path),
        warnings=warnings,
        starts_anywhere=source.starts_anywhere(candidate.matrix),
        spill_bytes=source.spill_bytes(candidate.matrix),
        obs_records=mapped.records,
        obs_origin=mapped.origin,
        dropped=dict(source.dropped),
        uri=str(source.path) if download is None else download.url,
    )
