"""Which column of a file's gene table names its genes (floor 4): the first that a vocabulary knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cellmill.errors import FormatError, GeneMatchError
from cellmill.genes import Alignment, GeneTable, Vocabulary, advice_for, align, describe_ids, recognise_species
from cellmill.sources import GeneColumns
from cellmill.sources.base import ID_COLUMNS, SYMBOL_COLUMNS

__all__ = ["GeneNames", "align_columns", "names_of", "species_of", "unknown_species"]

_EXAMPLES = 5


@dataclass(frozen=True)
class GeneNames:
    """One way in which a file names its genes.

    Attributes
    ----------
    place : str
        Where the names stand; "" for the names that a source takes by itself.
    ids : sequence of str
    symbols : sequence of str or None
        Names beside the ids.
    """

    place: str
    ids: Sequence[str]
    symbols: Sequence[str] | None


def names_of(genes: GeneColumns) -> Iterator[GeneNames]:
    """Yield the ways in which a file names its genes: its own choice, the usual columns of ids, the index, names."""
    yield GeneNames("", genes.ids, genes.symbols)
    tried = [genes.ids] if genes.symbols is None else [genes.ids, genes.symbols]
    by_name = {name.casefold(): name for name in genes.columns}
    columns = [by_name[name] for name in (*ID_COLUMNS, *SYMBOL_COLUMNS) if name in by_name]
    found = [(f"the column {name!r} of the gene table", genes.columns[name]) for name in columns]
    after_ids = sum(name in by_name for name in ID_COLUMNS)
    found.insert(after_ids, ("the index of the gene table", genes.index))
    for place, names in found:
        if names not in tried:
            tried.append(names)
            yield GeneNames(place, names, None)


def align_columns(
    genes: GeneColumns, *, vocabulary: Vocabulary, table: GeneTable | None, min_match: float, where: str
) -> Alignment:
    """Return the alignment of a file's genes by the first of its columns that matches well enough.

    Raises
    ------
    GeneMatchError
        When fewer than `min_match` of the genes are found by any of them; says what was tried.
    """
    refused: GeneMatchError | None = None
    tried = []
    for names in names_of(genes):
        try:
            found = align(
                names.ids, names.symbols, vocabulary=vocabulary, table=table, min_match=min_match, where=where
            )
        except GeneMatchError as error:
            refused = refused or error
            if names.place:
                tried.append(f"{names.place} ({describe_ids(names.ids)})")
            continue
        return Alignment(found.target, replace(found.report, names_from=names.place)) if names.place else found
    assert refused is not None  # a file names its genes in at least one way
    if not tried:
        raise refused
    raise GeneMatchError(f"{refused} No better: {'; '.join(tried)}.")


def species_of(genes: GeneColumns) -> str | None:
    """Return the species that the first telling column of a file's genes says, None where none does."""
    return next(filter(None, (recognise_species(names.ids, names.symbols) for names in names_of(genes))), None)


def unknown_species(genes: GeneColumns, *, path: object, matrix: str) -> GeneMatchError | FormatError:
    """Return the error for a file whose genes are of no species that is known."""
    if not genes.ids:
        return FormatError(f"{path}: {matrix} has no genes; there is nothing to store")
    described = "; ".join(
        f"{names.place + ': ' if names.place else ''}{describe_ids(names.ids)}, for example "
        f"{', '.join(map(repr, names.ids[:_EXAMPLES]))}"
        for names in names_of(genes)
    )
    advice = advice_for(genes.ids) or (
        "Pass --vocabulary human, mouse, a vocabulary file, or union to keep the files' own ids as they are."
    )
    return GeneMatchError(f"{path}: its genes look like neither human nor mouse: {described}. {advice}")
