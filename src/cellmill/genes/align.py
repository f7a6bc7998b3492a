"""The genes of a file laid onto a vocabulary, with a report (floor 2).

Knows names, tables and vocabularies. Must not know of files or counts, other than one total per gene that the report
can be weighed with. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import GeneMatchError
from cellmill.genes.describe import advice_for, describe_ids
from cellmill.genes.identifiers import strip_version
from cellmill.genes.resolve import Outcome, Resolution, recognise_species, resolve
from cellmill.genes.table import SPECIES, GeneTable
from cellmill.genes.vocabulary import Vocabulary
from cellmill.units import share_text

__all__ = ["Alignment", "AlignmentReport", "Duplicate", "align", "table_for", "union_vocabulary"]

Int64 = npt.NDArray[np.int64]
_EXAMPLES = 10


@dataclass(frozen=True)
class Duplicate:
    """Several columns of a file that are one gene; their counts are added.

    Attributes
    ----------
    gene_id : str
        Id in the vocabulary.
    columns : tuple of int
        Columns of the file, ascending, counted from 0.
    names : tuple of str
        What the file calls them.
    """

    gene_id: str
    columns: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class AlignmentReport:
    """What became of the genes of a file.

    Attributes
    ----------
    n_genes, matched : int
        Genes of the file; those of them that are in the vocabulary.
    outcomes : dict of str to int
        Genes per `Outcome`, most frequent first.
    duplicates : tuple of Duplicate
        Genes that several columns of the file mean.
    unmatched : tuple of str
        Up to ten names that were not found, ambiguous ones included.
    species, reference : str or None
        Species of the file's names; the 10x Genomics reference they were recognised by.
    umi_shares : dict of str to float, or None
        Share of the counts per outcome, once `with_umi_shares` was called.
    names_from : str
        The column that named the genes, where it was not the one that is usual for the file; else "".
    codes : ndarray of int8, shape (n_genes,)
        Outcome of each gene, as position in ``list(Outcome)``.
    """

    n_genes: int
    matched: int
    outcomes: dict[str, int]
    duplicates: tuple[Duplicate, ...]
    unmatched: tuple[str, ...]
    species: str | None
    reference: str | None
    vocabulary_hash: str
    umi_shares: dict[str, float] | None = None
    names_from: str = ""
    codes: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8), repr=False, compare=False)

    @property
    def share_matched(self) -> float:
        """Share of the file's genes that are in the vocabulary; 0 for no genes."""
        return self.matched / self.n_genes if self.n_genes else 0.0

    def outcome_of_each(self) -> list[str]:
        """Return the outcome of each gene of the file, in its order."""
        names = [outcome.value for outcome in Outcome]
        return [names[code] for code in self.codes.tolist()]

    def with_umi_shares(self, umi_per_source_gene: npt.ArrayLike) -> AlignmentReport:
        """Return the report with the share of all counts that each outcome holds.

        Parameters
        ----------
        umi_per_source_gene : array_like, shape (n_genes,)
            Total count of each gene of the file, in its order.

        Raises
        ------
        ValueError
            When the number of genes is another.
        """
        umi = np.asarray(umi_per_source_gene, dtype=np.float64)
        if umi.shape != (self.n_genes,):
            raise ValueError(f"expected one total for each of {self.n_genes:,} genes, found shape {umi.shape}")
        total = float(umi.sum()) or 1.0
        names = list(Outcome)
        sums = np.bincount(self.codes, weights=umi, minlength=len(names))
        shares: dict[str, float] = {
            str(name): float(sums[i]) / total for i, name in enumerate(names) if name.value in self.outcomes
        }
        return replace(self, umi_shares=shares)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return {
            "n_genes": self.n_genes,
            "matched": self.matched,
            "share_matched": self.share_matched,
            "outcomes": dict(self.outcomes),
            "umi_shares": None if self.umi_shares is None else dict(self.umi_shares),
            "duplicates": [
                {"gene_id": d.gene_id, "columns": list(d.columns), "names": list(d.names)} for d in self.duplicates
            ],
            "unmatched_examples": list(self.unmatched),
            "species": self.species,
            "reference": self.reference,
            "names_from": self.names_from,
            "vocabulary_hash": self.vocabulary_hash,
        }


@dataclass(frozen=True)
class Alignment:
    """Where each gene of a file goes.

    Attributes
    ----------
    target : ndarray of int64, shape (n_genes of the file,)
        Position in ``vocabulary.ids``; -1 for genes that are left out. Several genes may share a target: add them.
    report : AlignmentReport
        What happened, counted.
    """

    target: Int64
    report: AlignmentReport


def align(
    ids: Sequence[str],
    symbols: Sequence[str] | None = None,
    *,
    vocabulary: Vocabulary,
    table: GeneTable | None,
    min_match: float = 0.6,
    where: str = "these genes",
) -> Alignment:
    """Return the place of each gene of a file in a vocabulary.

    Parameters
    ----------
    ids, symbols : sequence of str
        Ids and, if there are any, names of the file's genes in order.
    vocabulary : Vocabulary
        Where to. Its ids may be Ensembl ids or symbols.
    table : GeneTable or None
        The species whose names are understood; None takes the ids as they are (Ensembl versions aside).
    min_match : float
        Smallest share of the file's genes that must be found.
    where : str
        What to call the file in the error.

    Raises
    ------
    GeneMatchError
        When fewer than `min_match` of the genes are found, or there are no genes at all.

    Examples
    --------
    >>> vocabulary = Vocabulary(["ENSG00000141510", "ENSG00000156738"])
    >>> found = align(["MS4A1", "TP53"], vocabulary=vocabulary, table=GeneTable.load("human"))
    >>> found.target.tolist(), found.report.share_matched
    ([1, 0], 1.0)
    """
    target, outcomes, resolution = _place(ids, symbols, vocabulary, table)
    report = _report(ids, symbols, target, outcomes, resolution, vocabulary, table)
    if report.n_genes == 0 or report.share_matched < min_match:
        raise GeneMatchError(_too_few(ids, symbols, report, vocabulary, min_match, where))
    return Alignment(target=target, report=report)


def table_for(vocabulary: Vocabulary) -> GeneTable | None:
    """Return the gene table of the species a vocabulary is of, None when it is of no shipped species."""
    species = recognise_species(vocabulary.ids, None if vocabulary.symbols == vocabulary.ids else vocabulary.symbols)
    return None if species is None else GeneTable.load(species)


def union_vocabulary(genes: Sequence[tuple[Sequence[str], Sequence[str] | None]], *, name: str = "union") -> Vocabulary:
    """Return the vocabulary of all ids that occur in any of several files, ascending, as they are.

    Parameters
    ----------
    genes : sequence of (ids, symbols or None)
        One pair per file; the first symbol seen for an id is kept.
    """
    symbol_of: dict[str, str] = {}
    for ids, symbols in genes:
        for gene_id, symbol in zip(ids, ids if symbols is None else symbols, strict=True):
            symbol_of.setdefault(gene_id, symbol)
    ids = sorted(symbol_of)
    return Vocabulary(ids, symbols=[symbol_of[gene_id] for gene_id in ids], name=name)


def _place(
    ids: Sequence[str], symbols: Sequence[str] | None, vocabulary: Vocabulary, table: GeneTable | None
) -> tuple[Int64, list[Outcome], Resolution | None]:
    target = vocabulary.index_of(ids)
    stripped = vocabulary.index_of(strip_version(gene_id) for gene_id in ids)
    target = np.where(target >= 0, target, stripped)
    outcomes = [Outcome.EXACT_ID if position >= 0 else Outcome.UNMATCHED for position in target.tolist()]
    if table is None:
        return target, outcomes, None
    resolution = resolve(ids, symbols, table)
    where_is, by_id = _positions_by_gene(vocabulary, table)
    by_symbol = vocabulary.index_of(symbols if symbols is not None else ids)
    verbatim = np.where(target >= 0, target, by_symbol)
    for i, (gene_id, outcome) in enumerate(zip(resolution.ids, resolution.outcomes, strict=True)):
        position = -1 if gene_id is None else where_is.get(gene_id, -1)
        if verbatim[i] >= 0 and (position < 0 or not by_id):
            target[i], outcomes[i] = verbatim[i], Outcome.EXACT_ID
        elif position >= 0:
            target[i], outcomes[i] = position, outcome
        else:
            outcomes[i] = outcome if gene_id is None else Outcome.NOT_IN_VOCABULARY
    return target, outcomes, resolution


def _positions_by_gene(vocabulary: Vocabulary, table: GeneTable) -> tuple[Mapping[str, int], bool]:
    """Position in the vocabulary of each gene of the table, by Ensembl id, and whether its own ids are Ensembl ids.

    Where they are not, a name that stands in the vocabulary letter for letter comes first: whoever trained with such a
    vocabulary looked names up that way.
    """
    direct = {gene_id: i for i, gene_id in enumerate(vocabulary.ids) if gene_id in table.positions}
    if 2 * len(direct) >= len(vocabulary):
        return direct, True
    found: dict[str, int] = {}
    for i, gene_id in enumerate(resolve(vocabulary.ids, None, table).ids):
        if gene_id is not None:
            found.setdefault(gene_id, i)
    return found, False


def _report(
    ids: Sequence[str],
    symbols: Sequence[str] | None,
    target: Int64,
    outcomes: list[Outcome],
    resolution: Resolution | None,
    vocabulary: Vocabulary,
    table: GeneTable | None,
) -> AlignmentReport:
    code_of = {outcome: code for code, outcome in enumerate(Outcome)}
    missing = np.flatnonzero(target < 0)[:_EXAMPLES].tolist()
    return AlignmentReport(
        n_genes=len(ids),
        matched=int(np.count_nonzero(target >= 0)),
        outcomes={outcome.value: count for outcome, count in Counter(outcomes).most_common()},
        duplicates=_duplicates(ids, target, vocabulary),
        unmatched=tuple(ids[i] for i in missing),
        species=table.species if table is not None else recognise_species(ids, symbols),
        reference=None if resolution is None else resolution.reference,
        vocabulary_hash=vocabulary.hash,
        codes=np.array([code_of[outcome] for outcome in outcomes], dtype=np.int8),
    )


def _duplicates(ids: Sequence[str], target: Int64, vocabulary: Vocabulary) -> tuple[Duplicate, ...]:
    uses = np.bincount(target[target >= 0], minlength=len(vocabulary))
    found = []
    for position in np.flatnonzero(uses > 1).tolist():
        columns = tuple(np.flatnonzero(target == position).tolist())
        found.append(Duplicate(vocabulary.ids[position], columns, tuple(ids[i] for i in columns)))
    return tuple(found)


def _too_few(
    ids: Sequence[str],
    symbols: Sequence[str] | None,
    report: AlignmentReport,
    vocabulary: Vocabulary,
    min_match: float,
    where: str,
) -> str:
    if report.n_genes == 0:
        return (
            f"{where} has no genes, so nothing can be matched with a vocabulary; expected at least one. "
            "Its gene axis is empty: leave the file out, or write it again with its genes."
        )
    called = f"the vocabulary {vocabulary.name!r}" if vocabulary.name else "the given vocabulary"
    examples = ", ".join(repr(name) for name in report.unmatched[:5])
    return (
        f"{where}: {report.matched:,} of {report.n_genes:,} genes ({share_text(report.share_matched)}) are in "
        f"{called}; at least {min_match:.0%} are needed. Not found, for example: {examples}. "
        f"As for the ids, {_described(ids, symbols)}. " + _advice(ids, symbols, report, vocabulary)
    )


def _described(ids: Sequence[str], symbols: Sequence[str] | None) -> str:
    said = describe_ids(ids)
    return (
        said if symbols is None or symbols == ids else f"{said}; as for the names beside them, {describe_ids(symbols)}"
    )


def _advice(ids: Sequence[str], symbols: Sequence[str] | None, report: AlignmentReport, vocabulary: Vocabulary) -> str:
    """Name the shipped vocabulary that would match better, or the ways that are left."""
    shares = {}
    for species in SPECIES:
        found = resolve(ids, symbols, GeneTable.load(species)).ids
        shares[species] = sum(gene_id is not None for gene_id in found) / len(ids)
    best = max(shares, key=shares.__getitem__)
    if shares[best] > max(report.share_matched, 0.3) and best != vocabulary.name:
        return (
            f'The {best} gene table knows {share_text(shares[best])} of them: build a store with vocabulary="{best}" '
            f"(cellmill build NEW.mill INPUT... --vocabulary {best})."
        )
    if advice := advice_for(ids):
        return advice
    return (
        "No shipped vocabulary knows them better. If they are the right genes, keep the file's own ids with "
        'vocabulary="union" (--vocabulary union), or accept the share with min_match (--min-match).'
    )
