"""What a card says (floor 7): numbers and text only. How it looks is in `page`, where it comes from in `collect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CARD_FORMAT", "CardData", "CardFiles", "Composition", "GenePoints", "Spread"]

CARD_FORMAT = 1


@dataclass(frozen=True)
class Composition:
    """How many cells have which label.

    Attributes
    ----------
    column : str
        Name in obs.
    title : str
        What it is: the schema's word for a column of the common schema, and for any other its own name.
    n_labels, n_unlabelled : int
        Different labels; cells without one.
    cells : dict of str to int
        By label, commonest first; at most 1,000 of them.
    """

    column: str
    title: str
    n_labels: int
    n_unlabelled: int
    cells: dict[str, int]


@dataclass(frozen=True)
class Spread:
    """How a number of each cell is spread.

    Attributes
    ----------
    column, title : str
    edges : tuple of float
        Of the bars, one more than `cells`.
    cells : tuple of int
        In each bar, the upper edge not included.
    n_zero, n_missing : int
        Cells with zero (of a scale that has no place for it) and without a number.
    smallest, median, largest : float or None
        None where no cell has a number. The median of shares is to one part in a thousand.
    is_log : bool
        Whether the edges are evenly spaced on a logarithmic axis.
    """

    column: str
    title: str
    edges: tuple[float, ...]
    cells: tuple[int, ...]
    n_zero: int
    n_missing: int
    smallest: float | None
    median: float | None
    largest: float | None
    is_log: bool


@dataclass(frozen=True)
class GenePoints:
    """Mean and variance of the raw counts of each detected gene over a sample of cells."""

    n_cells: int
    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]
    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclass(frozen=True)
class CardData:
    """Everything that a card shows.

    Attributes
    ----------
    name : str
        Of the store.
    facts : dict
        Cells, genes, counts, bytes, hashes, versions.
    compositions : tuple of Composition
    spreads : tuple of Spread
    genes : GenePoints or None
        None where no cell has a count.
    outcomes : dict of str to str
        What each outcome of gene matching means, in the order of the sources' tables.
    sources : tuple of dict
        Each from its report: name, kind, matrix, cells, gene match, proof, provenance, licence, checksum, notes.
    duplicates : dict or None
        As they were recorded; None where they were not looked for.
    runs : tuple of dict
        Builds and appends that made the store: when, how long, what was skipped.
    """

    name: str
    facts: dict[str, Any]
    compositions: tuple[Composition, ...]
    spreads: tuple[Spread, ...]
    genes: GenePoints | None
    outcomes: dict[str, str]
    sources: tuple[dict[str, Any], ...]
    duplicates: dict[str, Any] | None = None
    runs: tuple[dict[str, Any], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values; the points of its gene figure are left out."""
        genes = None if self.genes is None else {"n_cells": self.genes.n_cells, "n_genes": len(self.genes.gene_ids)}
        return {
            "format": CARD_FORMAT,
            "name": self.name,
            **self.facts,
            "composition": [asdict(one) for one in self.compositions],
            "spread": [asdict(one) for one in self.spreads],
            "gene_statistics": genes,
            "sources": list(self.sources),
            "duplicates": self.duplicates,
            "runs": list(self.runs),
        }


@dataclass(frozen=True)
class CardFiles:
    """Where a card was written."""

    html: Path
    json: Path
