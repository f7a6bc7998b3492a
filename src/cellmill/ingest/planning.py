"""Making the plan of a build (floor 4): every input opened, genes aligned and ordered, obs unified; nothing written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from cellmill.errors import CellmillError, InputError
from cellmill.events import emit
from cellmill.genes import Vocabulary
from cellmill.ingest.aligning import AlignedGenes, GeneAligner
from cellmill.ingest.base import Base
from cellmill.ingest.candidates import Candidate, open_candidate
from cellmill.ingest.cautions import cautions_of
from cellmill.ingest.failures import Refused, is_about_input, stop_for
from cellmill.ingest.filters import check_where
from cellmill.ingest.gene_minimum import count_detected, often_detected
from cellmill.ingest.gene_order import head_model, storage_order
from cellmill.ingest.options import BuildOptions, check_policy
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan, input_stamp
from cellmill.ingest.progress import tell_refused
from cellmill.ingest.schema import check_renames, dataset_names, obs_columns_of, unified_schema
from cellmill.ingest.species import choose_vocabulary
from cellmill.sources import expand_inputs

__all__ = ["plan_build"]

T = TypeVar("T")


def plan_build(
    inputs: Sequence[str | Path],
    *,
    vocabulary: str | Path | Vocabulary | None = None,
    options: BuildOptions | None = None,
    base: Base | None = None,
) -> BuildPlan:
    """Plan a build: open every input, choose matrices, align genes, order them, unify obs.

    With `base`, a store to add to, its vocabulary, genes, datasets and columns are given.

    Raises
    ------
    InputError
        When no input can be used, or what is asked for cannot be meant. Where only some inputs cannot be used, they are
        in `skipped` (with `options.skip_bad`) or `refused`.
    """
    options = options or BuildOptions()
    check_policy(options, vocabulary)
    guard = _Guard(skip=options.skip_bad)
    paths = expand_inputs(inputs, keep_unusable=options.skip_bad)
    found = [guard(path, partial(open_candidate, path, options)) for path in paths]
    candidates = [candidate for candidate in found if candidate is not None]
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
    names = dataset_names([candidate.source for candidate, _ in aligned])
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
        return _nothing_new(base, guard.refused, options)
    if not aligned:
        raise _nothing_left(guard.refused, n_inputs=len(paths), skip=options.skip_bad)
    old_columns = base.obs_columns if base else ()
    spelling = {name.casefold(): name for name, _, _ in old_columns}
    obs_names = [obs_columns_of(candidate.source, dict(options.rename), spelling) for candidate, _ in aligned]
    check_renames(options.rename, [candidate.source for candidate, _ in aligned])
    plans = tuple(
        _source_plan(candidate, genes, name, columns, options)
        for (candidate, genes), name, columns in zip(aligned, names, obs_names, strict=True)
    )
    schema = unified_schema([old_columns, *obs_names])
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
            raise _nothing_left(guard.refused, n_inputs=len(paths), skip=options.skip_bad)
        often = often_detected(order, counted, least=options.min_cells_per_gene, needed=base is None)
        order, n_rare = often, len(order) - len(often)
    if base:
        order = np.concatenate([base.order, order])
    head = (
        base.head
        if base
        else head_model([(c, genes.alignment) for c, genes in aligned], order, n_vocabulary=len(chosen))
    )
    for candidate in candidates:
        candidate.source.close()
    skipped = tuple(Skipped(one.path, str(one.error)) for one in guard.refused) if options.skip_bad else ()
    refused = () if options.skip_bad else tuple(guard.refused)
    return BuildPlan(plans, skipped, chosen, chosen_name, order, schema, options, base, head, refused, n_rare)


def _counted_ones(items: Sequence[T], counted: Sequence[object | None]) -> list[T]:
    return [item for item, count in zip(items, counted, strict=True) if count is not None]


def _nothing_new(base: Base, refused: Sequence[Refused], options: BuildOptions) -> BuildPlan:
    """Plan nothing, since the store has the inputs already."""
    skipped = tuple(Skipped(one.path, str(one.error)) for one in refused)
    schema = unified_schema([base.obs_columns])
    name = base.manifest.vocabulary_name
    return BuildPlan((), skipped, base.vocabulary, name, base.order, schema, options, base, base.head)


def _nothing_left(refused: Sequence[Refused], *, n_inputs: int, skip: bool) -> CellmillError:
    if not skip:
        return stop_for(refused, n_inputs=n_inputs, kept=False)
    listed = "\n".join(f"  {one.path}: {one.error}" for one in refused)
    return InputError(f"no input is left to build from:\n{listed}")


class _Guard:
    """Runs a step for one input; an error of the input is kept, so that the others are looked at as well."""

    def __init__(self, *, skip: bool) -> None:
        self.refused: list[Refused] = []
        self._skip = skip

    def __call__(self, path: Path, step: Callable[[], T]) -> T | None:
        try:
            return step()
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
        tell_refused(path, skip=self._skip)


def _align(candidate: Candidate, aligner: GeneAligner, base: Base | None) -> AlignedGenes:
    genes = candidate.source.genes_of(candidate.matrix)
    where = f"{candidate.source.path} ({candidate.matrix})"
    if base:
        base.require_known_genes(genes.ids, where)
    return aligner.align(genes, where)


def _source_plan(
    candidate: Candidate,
    aligned: AlignedGenes,
    name: str,
    columns: tuple[tuple[str, str, str], ...],
    options: BuildOptions,
) -> SourcePlan:
    alignment = aligned.alignment
    source = candidate.source
    info = next(m for m in source.matrices() if m.name == candidate.matrix)
    genes = source.genes_of(candidate.matrix)
    warnings = cautions_of(candidate, aligned.classes, [new for _, new, _ in columns], options.filters)
    for warning in warnings:
        emit(f"looking at {source.path.name}", message=f"warning: {source.path.name}: {warning}")
    renamed = [f"obs column {old!r} is called {new!r} here" for old, new, _ in columns if old != new]
    dropped = [f"{n} {what}" for what, n in source.dropped.items()]
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
        notes=(*source.remarks, *renamed, *dropped),
        stamp=input_stamp(source.path),
        warnings=warnings,
        starts_anywhere=source.starts_anywhere(candidate.matrix),
        spill_bytes=source.spill_bytes(candidate.matrix),
    )
