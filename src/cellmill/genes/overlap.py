"""What two vocabularies share (floor 2): names, tokens, and the genes that their names mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellmill.genes.identifiers import keyed_by_ensembl
from cellmill.genes.resolve import recognise_species, resolve
from cellmill.genes.table import GeneTable
from cellmill.genes.vocabulary import Vocabulary

__all__ = ["Overlap", "compare_vocabularies"]

_EXAMPLES = 5


@dataclass(frozen=True)
class Overlap:
    """What two vocabularies share.

    Attributes
    ----------
    shared, only_here, only_there : int
        Ids in both, and in one of them alone; letter for letter.
    same_token : int
        Shared ids that have one token in both: with all of them, embeddings of one fit the other.
    examples_here, examples_there : tuple of str
        Up to five ids that only one has, in its order.
    species_here, species_there : str or None
        As recognised from the ids.
    same_genes : int or None
        Genes that both have once names are resolved to Ensembl ids; None where both are keyed by these already, or
        the species are not known or not the same.
    specials : dict of str to (int or None, int or None)
        Special tokens, padding aside, that have not the same token in both.
    """

    n_here: int
    n_there: int
    shared: int
    same_token: int
    examples_here: tuple[str, ...]
    examples_there: tuple[str, ...]
    species_here: str | None
    species_there: str | None
    same_genes: int | None
    specials: dict[str, tuple[int | None, int | None]]

    @property
    def only_here(self) -> int:
        """Ids that only the first has."""
        return self.n_here - self.shared

    @property
    def only_there(self) -> int:
        """Ids that only the second has."""
        return self.n_there - self.shared

    @property
    def share_here(self) -> float:
        """Share of the first's ids that the second has; 0 for none."""
        return self.shared / self.n_here if self.n_here else 0.0

    @property
    def share_there(self) -> float:
        """Share of the second's ids that the first has; 0 for none."""
        return self.shared / self.n_there if self.n_there else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "shared": self.shared,
            "share_here": self.share_here,
            "share_there": self.share_there,
            "same_token": self.same_token,
            "only_here": self.only_here,
            "only_there": self.only_there,
            "examples_here": list(self.examples_here),
            "examples_there": list(self.examples_there),
            "same_genes": self.same_genes,
            "specials_that_differ": {name: list(pair) for name, pair in self.specials.items()},
        }


def compare_vocabularies(here: Vocabulary, there: Vocabulary) -> Overlap:
    """Return what two vocabularies share.

    Examples
    --------
    >>> found = compare_vocabularies(Vocabulary(["a", "b"]), Vocabulary(["b", "c"]))
    >>> found.shared, found.same_token, found.examples_here
    (1, 0, ('a',))
    """
    there_of = dict(zip(there.ids, there.tokens.tolist(), strict=True))
    here_of = dict(zip(here.ids, here.tokens.tolist(), strict=True))
    shared = here_of.keys() & there_of.keys()
    species = tuple(recognise_species(words.ids, None) for words in (here, there))
    return Overlap(
        n_here=len(here),
        n_there=len(there),
        shared=len(shared),
        same_token=sum(here_of[gene_id] == there_of[gene_id] for gene_id in shared),
        examples_here=_first_without(here.ids, shared),
        examples_there=_first_without(there.ids, shared),
        species_here=species[0],
        species_there=species[1],
        same_genes=_same_genes(here, there, species),
        specials={
            name: (here.specials.get(name), there.specials.get(name))
            for name in dict.fromkeys([*here.specials, *there.specials])
            if not name.startswith("<junk") and here.specials.get(name) != there.specials.get(name)
        },
    )


def _first_without(ids: tuple[str, ...], shared: set[str]) -> tuple[str, ...]:
    found = (gene_id for gene_id in ids if gene_id not in shared)
    return tuple(gene_id for gene_id, _ in zip(found, range(_EXAMPLES), strict=False))


def _same_genes(here: Vocabulary, there: Vocabulary, species: tuple[str | None, ...]) -> int | None:
    known = species[0]
    if known is None or species[1] != known or (keyed_by_ensembl(here.ids) and keyed_by_ensembl(there.ids)):
        return None
    table = GeneTable.load(known)
    genes = [set(resolve(words.ids, None, table).ids) - {None} for words in (here, there)]
    return len(genes[0] & genes[1])
