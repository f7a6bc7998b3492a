"""Vocabularies built from what there is (floor 4): files, stores, lists of ids, other vocabularies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cellmill.errors import ConfigError, GeneMatchError, InputError, nearest
from cellmill.genes import (
    SPECIES,
    GeneTable,
    Vocabulary,
    align,
    describe_ids,
    keyed_by_ensembl,
    recognise_species,
    resolve,
    strip_version,
    table_for,
)
from cellmill.sources import expand_inputs, open_source
from cellmill.storage.urls import is_url
from cellmill.store import MANIFEST_NAME, open_store

__all__ = ["BuiltVocabulary", "Keep", "Order", "VocabularyPart", "build_vocabulary"]

Keep = Literal["base", "shared", "all"]
Order = Literal["id", "given", "frequency"]
_EXAMPLES = 5
_LISTS = (".txt", ".list")


@dataclass(frozen=True)
class VocabularyPart:
    """What one input gave to a vocabulary.

    Attributes
    ----------
    n_genes : int
        Genes of the input.
    outcomes : dict of str to int
        How they were recognised, as in the report of a build; ``own_id`` where ids are taken as they are.
    in_base : int or None
        Those of them that are in the base; None without one.
    left_out : int
        Those that are not in the vocabulary, with up to five of them in `examples`.
    """

    name: str
    n_genes: int
    outcomes: dict[str, int]
    in_base: int | None
    left_out: int
    examples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**vars(self), "examples": list(self.examples)}


@dataclass(frozen=True)
class BuiltVocabulary:
    """A vocabulary, and what each input gave to it."""

    vocabulary: Vocabulary
    parts: tuple[VocabularyPart, ...]


@dataclass(frozen=True)
class _Genes:
    """The genes of one input as it names them; `places` are their ids in the vocabulary, None for those left out."""

    name: str
    ids: Sequence[str]
    symbols: Sequence[str] | None
    places: Sequence[str | None] = ()
    outcomes: Sequence[str] = ()


def build_vocabulary(
    inputs: Sequence[str | Path | Vocabulary | Sequence[str]],
    *,
    base: str | Path | Vocabulary | None = None,
    keep: Keep = "base",
    own_ids: bool = False,
    order: Order = "id",
    layout: str | None = None,
    pad_to: int | None = None,
    name: str = "",
) -> BuiltVocabulary:
    """Build a vocabulary of the genes of several inputs.

    Names are resolved to Ensembl ids by the shipped table of the species, as `cellmill.build` does: one gene gets one
    token, whatever a file calls it.

    Parameters
    ----------
    inputs
        Count matrices (files, folders, patterns), stores (the genes that they measured), vocabularies ("human",
        "mouse", JSON files, `Vocabulary`), text files of one id a line (.txt), or lists of ids.
    base
        A vocabulary, named in the same ways, whose genes and tokens stay what they are.
    keep
        With a base: "base" for its genes, all of them, as MosaicFM restricts CELLxGENE to the genes of Tahoe-100M;
        "shared" for those of them that an input has; "all" for those and the further genes of the inputs after them.
    own_ids
        Take ids as they are, without a table.
    order
        Of genes that are not of the base: "id" (ascending), "given" (first seen first), or "frequency" (in most inputs
        first, then ascending).
    layout
        Renumber all tokens as a model family does: "cellmill", "scgpt" or "mosaicfm" (`Vocabulary.laid_out`). By
        default tokens of a base stay, and a new vocabulary is laid out as "cellmill".
    pad_to
        Fill up to a multiple of this many tokens.
    name
        What to call it.

    Raises
    ------
    InputError
        For an input that cannot be read, or inputs without genes.
    GeneMatchError
        When ids are of no species that is known, or of several, and are not taken as they are.
    VocabularyError
        For a layout that is not known, or a multiple below 1.

    Examples
    --------
    >>> build_vocabulary([["TP53", "CD3E"], ["CD3E", "MS4A1"]]).vocabulary.symbols
    ('TP53', 'MS4A1', 'CD3E')
    """
    for what, value, known in (("keep", keep, get_args(Keep)), ("order", order, get_args(Order))):
        if value not in known:
            raise ConfigError(f"{what} {value!r} is not known; choose {', '.join(known)}.{nearest(value, known)}")
    listed = [genes for one in inputs for genes in _genes_of(one)]
    old = None if base is None else _base(base)
    if not listed and old is None:
        raise InputError("a vocabulary needs at least one input, or a base")
    parts = _of_base(listed, old, own_ids=own_ids) if old else _by_species(listed, own_ids=own_ids)
    words = _joined(parts, old, keep, order, name)
    if layout is not None or old is None:
        words = words.laid_out(layout or "cellmill", pad_to=pad_to)
    elif pad_to is not None:
        words = words.padded(pad_to)
    return BuiltVocabulary(words, tuple(_part(genes, words, old) for genes in parts))


# ---- the genes of an input -------------------------------------------------------------------------------------


def _genes_of(one: str | Path | Vocabulary | Sequence[str]) -> Iterator[_Genes]:
    """The genes of one input; of each file that a folder or pattern means."""
    if isinstance(one, Vocabulary):
        yield _Genes(one.name or "the given vocabulary", one.ids, one.symbols)
    elif not isinstance(one, str | Path):
        yield _Genes("the given list", list(one), None)
    elif is_url(one) or (Path(one) / MANIFEST_NAME).is_file():
        store = open_store(one)
        yield _Genes(Path(str(one)).name, store.gene_ids, store.genes.column("symbol").to_pylist())
    elif str(one) in SPECIES or ".json" in Path(one).suffixes or _only_a_word(str(one)):
        words = Vocabulary.load(one)
        yield _Genes(words.name or str(one), words.ids, words.symbols)
    elif (ids := _listed_ids(Path(one))) is not None:
        yield _Genes(Path(one).name, ids, None)
    else:
        for path in expand_inputs([one]):
            with open_source(path) as source:
                yield _Genes(source.name, source.genes.ids, source.genes.symbols)


def _only_a_word(name: str) -> bool:
    """Whether a text names no file, nor looks as if it should: a vocabulary that is misspelt."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and not Path(name).exists()


def _listed_ids(path: Path) -> list[str] | None:
    """Ids of a text file, one a line, empty lines and `#` comments aside; None where it is no such list."""
    if path.suffix not in _LISTS or not path.is_file():
        return None
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        raise InputError(f"{path}: there is no id in this file; expected one a line")
    return None if any(len(line.split()) > 1 for line in ids) else ids


def _base(base: str | Path | Vocabulary) -> Vocabulary:
    if isinstance(base, Vocabulary):
        return base
    if is_url(base) or (Path(base) / MANIFEST_NAME).is_file():
        return open_store(base).vocabulary
    return Vocabulary.load(base)


# ---- names to ids of the vocabulary ------------------------------------------------------------------------------


def _by_species(listed: Sequence[_Genes], *, own_ids: bool) -> list[_Genes]:
    """Without a base: names resolved by the one species of all inputs, or taken as they are."""
    if own_ids:
        return [_placed(genes, [strip_version(i) for i in genes.ids], ["own_id"] * len(genes.ids)) for genes in listed]
    table = GeneTable.load(_one_species(listed))
    parts = []
    for genes in listed:
        found = resolve(genes.ids, genes.symbols, table)
        parts.append(_placed(genes, found.ids, [outcome.value for outcome in found.outcomes]))
    return parts


def _one_species(listed: Sequence[_Genes]) -> str:
    species: dict[str, list[str]] = {}
    for genes in listed:
        if not genes.ids:
            raise InputError(f"{genes.name}: there are no genes in it; leave it out")
        found = recognise_species(genes.ids, genes.symbols)
        if found is None:
            raise GeneMatchError(
                f"{genes.name}: its genes are neither human nor mouse; {describe_ids(genes.ids)}, for example "
                f"{', '.join(map(repr, genes.ids[:_EXAMPLES]))}. Take ids as they are with --own-ids (in Python: "
                "own_ids=True), or leave it out."
            )
        species.setdefault(found, []).append(genes.name)
    if len(species) > 1:
        said = "; ".join(f"{one}: {', '.join(names[:3])}" for one, names in species.items())
        raise GeneMatchError(
            f"the inputs are of more than one species ({said}). Build one vocabulary for each, or take ids as they are "
            "with --own-ids (in Python: own_ids=True)."
        )
    return next(iter(species))


def _of_base(listed: Sequence[_Genes], base: Vocabulary, *, own_ids: bool) -> list[_Genes]:
    """With a base: each name as the base has it, further genes by their Ensembl id where the base is keyed so."""
    table = None if own_ids else table_for(base)
    parts = []
    for genes in listed:
        found = align(genes.ids, genes.symbols, vocabulary=base, table=table, min_match=0.0, where=genes.name)
        further: Sequence[str | None] = genes.ids
        if table is not None and keyed_by_ensembl(base.ids):
            further = resolve(genes.ids, genes.symbols, table).ids
        places = [
            base.ids[position] if position >= 0 else other
            for position, other in zip(found.target.tolist(), further, strict=True)
        ]
        parts.append(_placed(genes, places, found.report.outcome_of_each()))
    return parts


def _placed(genes: _Genes, places: Sequence[str | None], outcomes: Sequence[str]) -> _Genes:
    return _Genes(genes.name, genes.ids, genes.symbols, places, outcomes)


# ---- the vocabulary ----------------------------------------------------------------------------------------------


def _joined(parts: Sequence[_Genes], base: Vocabulary | None, keep: Keep, order: Order, name: str) -> Vocabulary:
    symbols: dict[str, str] = {}
    uses: Counter[str] = Counter()
    for genes in parts:
        for place, symbol in zip(genes.places, genes.symbols or genes.ids, strict=True):
            if place is not None:
                symbols.setdefault(place, symbol)
        uses.update({place for place in genes.places if place is not None})
    ids = list(symbols)
    if order != "given":
        ids.sort(key=(lambda gene_id: (-uses[gene_id], gene_id)) if order == "frequency" else None)
    if base is None:
        table = _table_of(ids)
        return Vocabulary(ids, symbols=[_symbol(i, symbols[i], table) for i in ids], name=name or "built")
    words = base
    if keep == "shared":
        words = base.restricted(ids)
    elif keep == "all":
        table = _table_of(ids)
        words = base.extended(ids, symbols=[_symbol(i, symbols[i], table) for i in ids])
    return Vocabulary(
        words.ids,
        tokens=words.tokens.tolist(),
        symbols=words.symbols,
        specials=words.specials,
        name=name or words.name,
    )


def _table_of(ids: Sequence[str]) -> GeneTable | None:
    species = recognise_species(ids, None) if keyed_by_ensembl(ids) else None
    return None if species is None else GeneTable.load(species)


def _symbol(gene_id: str, given: str, table: GeneTable | None) -> str:
    """Today's symbol, where the table has the gene; else what the file calls it."""
    position = None if table is None else table.positions.get(gene_id)
    return given if position is None or table is None else table.symbols[position]


def _part(genes: _Genes, words: Vocabulary, base: Vocabulary | None) -> VocabularyPart:
    outside = [
        given for given, place in zip(genes.ids, genes.places, strict=True) if place is None or place not in words
    ]
    return VocabularyPart(
        name=genes.name,
        n_genes=len(genes.ids),
        outcomes=dict(Counter(genes.outcomes).most_common()),
        in_base=None if base is None else sum(place is not None and place in base for place in genes.places),
        left_out=len(outside),
        examples=tuple(outside[:_EXAMPLES]),
    )
