"""Which vocabulary a new store has (floor 4): given, of a species that is recognised, or the union of all ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellmill.errors import GeneMatchError
from cellmill.events import emit
from cellmill.genes import GeneTable, Vocabulary
from cellmill.genes.describe import describe_ids
from cellmill.ingest.base import table_for
from cellmill.ingest.candidates import Candidate
from cellmill.ingest.gene_columns import species_of, unknown_species

__all__ = ["choose_vocabulary"]


def choose_vocabulary(
    wanted: str | Path | Vocabulary | None, candidates: Sequence[Candidate], *, skip_bad: bool
) -> tuple[Vocabulary, str, GeneTable | None]:
    """The vocabulary, a name for it, and the table that resolves symbols (None: ids are matched as they are)."""
    if isinstance(wanted, Vocabulary):
        return wanted, wanted.name or "given", table_for(wanted.ids)
    if wanted == "union":
        return _union(candidates), "union", None
    if wanted is None:
        wanted = _recognised(candidates, skip_bad=skip_bad)
    if wanted in ("human", "mouse"):
        return Vocabulary.load(str(wanted)), str(wanted), GeneTable.load(str(wanted))
    loaded = Vocabulary.from_json(Path(wanted))
    return loaded, Path(wanted).name, table_for(loaded.ids)


def _union(candidates: Sequence[Candidate]) -> Vocabulary:
    symbols: dict[str, str] = {}
    named = [(one.source.path, one.source.genes_of(one.matrix)) for one in candidates]
    axes = {genes.key: genes for _, genes in named}
    for genes in axes.values():
        names = genes.symbols or genes.ids
        for gene_id, symbol in zip(genes.ids, names, strict=True):
            symbols.setdefault(gene_id, symbol)
    _tell_strangers({genes.key: (path, genes.ids) for path, genes in named})
    return Vocabulary(list(symbols), symbols=list(symbols.values()), name="union")


def _tell_strangers(axes: Mapping[str, tuple[Path, Sequence[str]]]) -> None:
    """Warn of inputs whose genes no other input has: their ids are of another kind, or of another species."""
    if len(axes) < 2:
        return
    held = Counter(gene for _, ids in axes.values() for gene in set(ids))
    for path, ids in axes.values():
        if ids and all(held[gene] == 1 for gene in ids):
            told = f"warning: {path.name} shares no gene with the other inputs; {describe_ids(ids)}"
            emit("genes", message=told)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _recognised(candidates: Sequence[Candidate], *, skip_bad: bool) -> str:
    """The species of the inputs; with `skip_bad`, that of most cells: inputs of another one are then left out."""
    species: dict[str, list[str]] = {}
    n_cells: Counter[str] = Counter()
    unknown = []
    known: dict[str, str | None] = {}  # a study has thousands of files and one gene axis
    for candidate in candidates:
        genes = candidate.source.genes_of(candidate.matrix)
        if genes.key not in known:
            known[genes.key] = species_of(genes)
        found = known[genes.key]
        if found:
            species.setdefault(found, []).append(candidate.source.path.name)
            n_cells[found] += candidate.source.n_cells
        else:
            unknown.append(candidate)
    if len(species) > 1 and not skip_bad:
        listed = "; ".join(f"{name}: {_some(files)}" for name, files in species.items())
        raise GeneMatchError(
            f"the inputs are of more than one species ({listed}). Build one store for each. (Or pass "
            "--vocabulary union, in Python vocabulary='union', to keep the files' own gene ids: genes of two species "
            "then have nothing in common.)"
        )
    if not species:
        genes = unknown[0].source.genes_of(unknown[0].matrix)
        raise unknown_species(genes, path=unknown[0].source.path, matrix=unknown[0].matrix)
    return n_cells.most_common(1)[0][0]
