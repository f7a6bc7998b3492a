"""From the names in a file to Ensembl ids (floor 2).

Knows the rules by which a name means a gene. Must not know of vocabularies, files or cells.

The rules, the first that answers wins:

1. an Ensembl id of the table, whatever its version (`Outcome.EXACT_ID`); the Y copy of a pseudoautosomal gene
   (``..._PAR_Y``) counts as the gene, and a retired id as the living one that it went over to (`Outcome.RETIRED_ID`),
   where that is certain (`GeneTable.successors`) and the file does not name the living gene as well;
2. an id written inside the name, as in ``TAP2_ENSG00000204267`` (`Outcome.SYMBOL_WITH_ID`);
3. the 10x Genomics reference the file was made with, when one explains at least 90 % of its names and more of them than
   today's symbols do: some hundred symbols mean another gene today than they did then. Names that occur twice in a
   reference are told apart by genome order, as ``PSMA2`` and ``PSMA2-1`` are after "make unique", but only where that
   order is certain (`GeneTable.in_certain_order`): genes that overlap or lie on several chromosomes are ambiguous;
4. today's symbol (`Outcome.CURRENT_SYMBOL`), a name in any of the references (`Outcome.TENX_SYMBOL`), a previous symbol
   (`Outcome.PREVIOUS_SYMBOL`), the earlier name of the human orthologue for mouse (`Outcome.ORTHOLOGUE_SYMBOL`), an
   alias (`Outcome.ALIAS`). Where a name has several genes, the best established one is meant (it has an HGNC id, is not
   retired, codes for a protein, is in more references); of two equal bearers of today's symbol the one with the older
   id is meant, since annotations add later ids for fragments and read-through copies. If that does not decide, the
   name is `Outcome.AMBIGUOUS`.

A retired id bears no symbol of today, only its last one: ``SEPT1`` is the last symbol of a retired id and a former name
of SEPTIN1, and means SEPTIN1. So a symbol that only retired ids bear means the living gene that a reference or HGNC
says once bore it, unless the file names that gene as well: then these are two genes, and the retired id is meant. In a
file that a reference explains, the reference decides here too, since it says which id was counted; fewer than
50 names are no proof of a reference, and there a living gene goes before a retired one. Where all that a living gene
has is an alias, the name means the retired id: SBP1 is an alias of MEGF8, but hg19 counted both, side by side.
Whichever rule finds a retired id, its successor takes its place as under 1.

A previous name, an orthologue's or an alias never adds to a gene that the same file names better: it is ambiguous then.
Otherwise an antibody called CD20 would be added to the counts of MS4A1. The same holds for the symbol of an Ensembl id
that the table does not know, which ranks between a firm name and these. Two names of one such rank for one gene are
both ambiguous.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cellmill.genes.identifiers import IdKind, embedded_id, kind_of, kind_shares, strip_version
from cellmill.genes.table import SPECIES, GeneTable

__all__ = ["Outcome", "Resolution", "find_reference", "recognise_species", "resolve"]

_MADE_UNIQUE = re.compile(r"(.+)[-.](\d{1,4})")
_REFERENCE_SHARE = 0.9
_SPECIES_SHARE = 0.3
_FEW_NAMES = 50
_ENSEMBL = frozenset({IdKind.ENSEMBL_HUMAN, IdKind.ENSEMBL_MOUSE, IdKind.ENSEMBL_OTHER})


class Outcome(StrEnum):
    """How a gene of a file was recognised, or why it was not."""

    EXACT_ID = "exact_id"
    RETIRED_ID = "retired_id"
    SYMBOL_WITH_ID = "symbol_with_id"
    CURRENT_SYMBOL = "current_symbol"
    TENX_SYMBOL = "tenx_symbol"
    PREVIOUS_SYMBOL = "previous_symbol"
    ORTHOLOGUE_SYMBOL = "orthologue_symbol"
    ALIAS = "alias"
    AMBIGUOUS = "ambiguous"
    UNMATCHED = "unmatched"
    NOT_IN_VOCABULARY = "not_in_vocabulary"


@dataclass(frozen=True)
class Resolution:
    """What each gene of a file is.

    Attributes
    ----------
    ids : tuple of (str or None)
        Ensembl id without version, in the order of the file; None where `outcomes` says why.
    outcomes : tuple of Outcome
        How it was found.
    reference : str or None
        The 10x Genomics reference that the symbols were recognised by.
    """

    ids: tuple[str | None, ...]
    outcomes: tuple[Outcome, ...]
    reference: str | None = None


Answer = tuple[int | None, Outcome]
_UNMATCHED: Answer = (None, Outcome.UNMATCHED)
_AMBIGUOUS: Answer = (None, Outcome.AMBIGUOUS)
_FIRM = 0
_UNKNOWN_ID = 1
_WEAK = {Outcome.PREVIOUS_SYMBOL: 2, Outcome.ORTHOLOGUE_SYMBOL: 3, Outcome.ALIAS: 4}


def resolve(ids: Sequence[str], symbols: Sequence[str] | None, table: GeneTable) -> Resolution:
    """Return the Ensembl id of each gene of a file, with how it was found.

    Parameters
    ----------
    ids : sequence of str
        The file's own gene ids; Ensembl ids, symbols, or anything.
    symbols : sequence of str, optional
        The file's gene names, same length and order; used for those genes whose id says nothing.
    table : GeneTable
        The species to look in.

    Returns
    -------
    Resolution
        Depends on the names of the whole file, not on one name alone (rule 3 above).

    Raises
    ------
    ValueError
        When `ids` and `symbols` differ in length.

    Examples
    --------
    >>> found = resolve(["ENSG00000141510.17", "MS4A1", "SEPT2"], None, GeneTable.load("human"))
    >>> [outcome.value for outcome in found.outcomes]
    ['exact_id', 'current_symbol', 'tenx_symbol']
    """
    if symbols is not None and len(symbols) != len(ids):
        raise ValueError(f"{len(ids)} gene ids but {len(symbols)} symbols: both must describe the same genes")
    answers = [_by_id(gene_id, symbols[i] if symbols is not None else "", table) for i, gene_id in enumerate(ids)]
    left = [i for i, answer in enumerate(answers) if answer is None]
    unknown_ids = {i for i in left if _has_ensembl_form(ids[i])}
    columns = [ids] if symbols is None else [symbols, ids]
    reference = None
    for column in columns:
        left = [i for i in left if answers[i] is None or answers[i] == _UNMATCHED]
        names = [column[i] for i in left]
        claimed = {answer[0] for answer in answers if answer is not None and answer[0] is not None}
        resolver = _Symbols(table, names, claimed)
        reference = reference or resolver.reference
        for i, answer in zip(left, resolver.answers(), strict=True):
            answers[i] = answer
    found = _succeeded([answer or _UNMATCHED for answer in answers], table)
    final = _refuse_weak_doubles(found, unknown_ids)
    return Resolution(
        ids=tuple(None if position is None else table.ids[position] for position, _ in final),
        outcomes=tuple(outcome for _, outcome in final),
        reference=reference,
    )


def recognise_species(ids: Sequence[str], symbols: Sequence[str] | None = None) -> str | None:
    """Return ``human`` or ``mouse`` if the names clearly say so, else None.

    Ensembl ids decide by their prefix when more than half of the genes have it, be it inside a longer name; otherwise
    the species that knows at least 30 % of the names, and twice as many as the other.

    Examples
    --------
    >>> recognise_species(["Lypla1", "Tcea1", "Rgs20"])
    'mouse'
    """
    shares = kind_shares([_id_inside(gene_id, symbols[i] if symbols else "") for i, gene_id in enumerate(ids)])
    for kind, species in ((IdKind.ENSEMBL_HUMAN, "human"), (IdKind.ENSEMBL_MOUSE, "mouse")):
        if shares.get(kind, 0.0) > 0.5:
            return species
    if shares.get(IdKind.ENSEMBL_OTHER, 0.0) > 0.5:
        return None
    for names in [ids] if symbols is None else [symbols, ids]:
        found = _species_of_symbols(names)
        if found is not None:
            return found
    return None


def find_reference(names: Sequence[str], table: GeneTable) -> str | None:
    """Return the 10x Genomics reference that explains the names better than today's symbols do, or None.

    Examples
    --------
    >>> find_reference(["TP53", "MS4A1", "CD3E"], GeneTable.load("human")) is None
    True
    """
    if not names:
        return None
    known_today = sum(name in table.current for name in names)
    known = {reference: sum(name in index for name in names) for reference, index in table.references.items()}
    best = max(known, key=known.__getitem__)
    return best if known[best] > known_today and known[best] >= _REFERENCE_SHARE * len(names) else None


def _id_inside(gene_id: str, symbol: str) -> str:
    """Return the Ensembl id written inside a name, as rule 2 finds it; else the id itself."""
    if kind_of(gene_id) in _ENSEMBL:
        return gene_id
    return embedded_id(gene_id) or embedded_id(symbol) or gene_id


def _species_of_symbols(names: Sequence[str]) -> str | None:
    if not names:
        return None
    known = {species: sum(name in GeneTable.load(species).known_names for name in names) for species in SPECIES}
    first, second = sorted(known, key=known.__getitem__, reverse=True)
    clear = known[first] >= _SPECIES_SHARE * len(names) and known[first] >= 2 * known[second]
    return first if clear else None


def _by_id(gene_id: str, symbol: str, table: GeneTable) -> Answer | None:
    position = table.positions.get(strip_version(gene_id).removesuffix("_PAR_Y"))
    if position is not None:
        return position, Outcome.EXACT_ID
    for name in (gene_id, symbol):
        inside = embedded_id(name)
        if inside is not None and inside in table.positions:
            return table.positions[inside], Outcome.SYMBOL_WITH_ID
    return None


def _succeeded(answers: list[Answer], table: GeneTable) -> list[Answer]:
    """Return the answers with living genes in place of retired ids, where the file names neither the living gene nor
    another retired id of it: otherwise these were counted as two genes.
    """
    heirs = table.successors
    claims = Counter(heirs.get(position, position) for position, _ in answers if position is not None)
    found = []
    for position, outcome in answers:
        heir = None if position is None else heirs.get(position)
        if heir is None or claims[heir] > 1:
            found.append((position, outcome))
        else:
            found.append((heir, Outcome.RETIRED_ID if outcome is Outcome.EXACT_ID else outcome))
    return found


def _has_ensembl_form(gene_id: str) -> bool:
    return kind_of(gene_id) in _ENSEMBL or embedded_id(gene_id) is not None


def _refuse_weak_doubles(answers: list[Answer], unknown_ids: set[int]) -> list[Answer]:
    """Return the answers with every claim that is not firm ambiguous, unless it is the one best claim to its gene."""
    ranks = [_WEAK.get(outcome, _UNKNOWN_ID if i in unknown_ids else _FIRM) for i, (_, outcome) in enumerate(answers)]
    best: dict[int | None, int] = {}
    for (position, _), rank in zip(answers, ranks, strict=True):
        best[position] = min(rank, best.get(position, rank))
    claims = Counter((position, rank) for (position, _), rank in zip(answers, ranks, strict=True))
    return [
        (position, outcome)
        if position is None or rank == _FIRM or (rank == best[position] and claims[position, rank] == 1)
        else _AMBIGUOUS
        for (position, outcome), rank in zip(answers, ranks, strict=True)
    ]


class _Symbols:
    """The names of one file that no id explains, resolved together."""

    def __init__(self, table: GeneTable, names: Sequence[str], claimed: set[int]) -> None:
        self.table = table
        self.names = names
        self.claimed = claimed
        self.distinct = set(names)
        self.reference = find_reference(names, table)
        self.index: Mapping[str, Sequence[int]] = table.references[self.reference] if self.reference else {}
        self.twice = self._names_with_copies()

    def answers(self) -> list[Answer]:
        """Resolve every name, in order."""
        seen: Counter[str] = Counter()
        found = []
        for name in self.names:
            found.append(self._one(name, seen[name]))
            seen[name] += 1
        return found

    def _names_with_copies(self) -> set[str]:
        """Names that this file shows more than once, verbatim or made unique by a suffix."""
        counts = Counter(self.names)
        copies = {name for name, count in counts.items() if count > 1}
        for name in self.names:
            base = self._made_unique(name)
            if base is not None:
                copies.add(base[0])
        return copies

    def _made_unique(self, name: str) -> tuple[str, int] | None:
        match = None if name in self.index or name in self.table.current else _MADE_UNIQUE.fullmatch(name)
        if match is None or len(self.index.get(match.group(1), ())) <= int(match.group(2)):
            return None
        return match.group(1), int(match.group(2))

    def _one(self, name: str, occurrence: int) -> Answer:
        base, copy = self._made_unique(name) or (name, occurrence)
        if base in self.index and not self._doubtful(base):
            return self._in_reference(base, copy)
        return self._anywhere(name)

    def _doubtful(self, name: str) -> bool:
        """Whether the reference gives only retired ids, and was guessed from too few names to be certain."""
        retired = self.table.retired
        return len(self.names) < _FEW_NAMES and all(retired[position] for position in self.index[name])

    def _in_reference(self, name: str, copy: int) -> Answer:
        positions = self.index[name]
        free = [position for position in positions if position not in self.claimed]
        if len(positions) == 1:
            position: int | None = positions[0]
        elif len(free) == 1:
            position = free[0]
        elif name in self.twice:
            ordered = copy < len(positions) and self.table.in_certain_order(positions)
            position = positions[copy] if ordered else None
        else:
            position = self._best(free)
        if position is None:
            return _AMBIGUOUS
        current = self.table.symbols[position] == name
        return position, Outcome.CURRENT_SYMBOL if current else Outcome.TENX_SYMBOL

    def _anywhere(self, name: str) -> Answer:
        table = self.table
        current = table.current.get(name, ())
        heir = self._heir(name) if all(table.retired[position] for position in current) else None
        if heir is not None:
            return heir
        for positions, outcome in (
            (current, Outcome.CURRENT_SYMBOL),
            ({p for index in table.references.values() for p in index.get(name, ())}, Outcome.TENX_SYMBOL),
            (table.previous.get(name, ()), Outcome.PREVIOUS_SYMBOL),
            (table.orthologue.get(name, ()), Outcome.ORTHOLOGUE_SYMBOL),
            (table.alias.get(name, ()), Outcome.ALIAS),
        ):
            if positions:
                position = self._best(sorted(positions), older_wins=outcome is Outcome.CURRENT_SYMBOL)
                return _AMBIGUOUS if position is None else (position, outcome)
        return _UNMATCHED

    def _heir(self, name: str) -> Answer | None:
        """Return the living gene that once bore a name of retired ids; None where the file names that gene as well."""
        table = self.table
        for positions, outcome in (
            ({p for index in table.references.values() for p in index.get(name, ())}, Outcome.TENX_SYMBOL),
            (table.previous.get(name, ()), Outcome.PREVIOUS_SYMBOL),
        ):
            living = [position for position in positions if not table.retired[position]]
            if living:
                position = self._best(living)
                if position is None:
                    return _AMBIGUOUS
                named_itself = position in self.claimed or table.symbols[position] in self.distinct
                return None if named_itself else (position, outcome)
        return None

    def _best(self, positions: Sequence[int], *, older_wins: bool = False) -> int | None:
        """Return the one best established gene, None when that is not decided; positions ascend with the age of ids."""
        if not positions:
            return None
        standing = self.table.standing
        best = max(standing[position] for position in positions)
        equals = sorted(position for position in positions if standing[position] == best)
        return equals[0] if len(equals) == 1 or (older_wins and len(equals) == 2) else None
