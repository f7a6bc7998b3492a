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
from cellmill.ingest.gene_order import head_model, storage_order
from cellmill.ingest.options import BuildOptions, check_policy
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan, input_stamp
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
        For an input that cannot be used (unless `options.skip_bad`), naming it and the remedy.
    """
    options = options or BuildOptions()
    check_policy(options, vocabulary)
    skipped: list[Skipped] = []
    guard = _Guard(skipped, skip=options.skip_bad)
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
    if base:
        kept = [
            guard(candidate.source.path, partial(base.require_new, name, candidate.source.path))
            for (candidate, _), name in zip(aligned, names, strict=True)
        ]
        aligned = [pair for pair, name in zip(aligned, kept, strict=True) if name]
        names = [name for name in kept if name]
    if not aligned:
        raise InputError("no input is left to build from:\n" + "\n".join(f"  {s.path}: {s.reason}" for s in skipped))
    old_columns = base.obs_columns if base else ()
    spelling = {name.casefold(): name for name, _, _ in old_columns}
    obs_names = [obs_columns_of(candidate.source, dict(options.rename), spelling) for candidate, _ in aligned]
    check_renames(options.rename, [candidate.source for candidate, _ in aligned])
    plans = tuple(
        _source_plan(candidate, genes, name, columns)
        for (candidate, genes), name, columns in zip(aligned, names, obs_names, strict=True)
    )
    order = storage_order([(c, genes.alignment.target) for c, genes in aligned], n_vocabulary=len(chosen))
    if base:
        order = np.concatenate([base.order, order[~np.isin(order, base.order)]])
    head = (
        base.head
        if base
        else head_model([(c, genes.alignment) for c, genes in aligned], order, n_vocabulary=len(chosen))
    )
    for candidate in candidates:
        candidate.source.close()
    schema = unified_schema([old_columns, *obs_names])
    return BuildPlan(plans, tuple(skipped), chosen, chosen_name, order, schema, options, base, head)


class _Guard:
    """Runs a step for one input; with `skip`, an input error becomes a `Skipped` instead of ending the plan."""

    def __init__(self, skipped: list[Skipped], *, skip: bool) -> None:
        self._skipped = skipped
        self._skip = skip

    def __call__(self, path: Path, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except (CellmillError, OSError) as error:
            if not self._skip:
                raise
            self._skipped.append(Skipped(path, str(error)))
            emit(f"skipped {path.name}", message=f"skipped {path}")  # why: in the report
            return None


def _align(candidate: Candidate, aligner: GeneAligner, base: Base | None) -> AlignedGenes:
    genes = candidate.source.genes_of(candidate.matrix)
    where = f"{candidate.source.path} ({candidate.matrix})"
    if base:
        base.require_known_genes(genes.ids, where)
    return aligner.align(genes, where)


def _source_plan(
    candidate: Candidate, aligned: AlignedGenes, name: str, columns: tuple[tuple[str, str, str], ...]
) -> SourcePlan:
    alignment = aligned.alignment
    source = candidate.source
    info = next(m for m in source.matrices() if m.name == candidate.matrix)
    genes = source.genes_of(candidate.matrix)
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
    )
