"""From a block of a file to the cells taken of it (floor 4): rounded where allowed, proven, measured, filtered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.ingest.audit import Violation
from cellmill.ingest.convert import convert_block
from cellmill.ingest.facts import CellFacts, measure_cells
from cellmill.ingest.filters import FilteredObs
from cellmill.ingest.rounding import Rounded, round_block
from cellmill.kernel import IngestedCells
from cellmill.sources import CountBlock

__all__ = ["Admission", "Admitted", "Tally"]


@dataclass(frozen=True)
class Tally:
    """What became of cells on the way in.

    Attributes
    ----------
    read : int
        Cells read.
    removed : mapping
        How many each filter removed, in the order in which filters are applied.
    rounded : Rounded
        Values of the cells read, also of those removed.
    entries : int
        Stored entries of the cells read, as their source gave them.
    """

    read: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)
    rounded: Rounded = field(default_factory=Rounded)
    entries: int = 0

    def __add__(self, other: Tally) -> Tally:
        names = [*self.removed, *(name for name in other.removed if name not in self.removed)]
        removed = {name: self.removed.get(name, 0) + other.removed.get(name, 0) for name in names}
        return Tally(self.read + other.read, removed, self.rounded + other.rounded, self.entries + other.entries)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "read": self.read,
            "removed": dict(self.removed),
            "rounded": [self.rounded.values, self.rounded.largest_distance],
            "entries": self.entries,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """Return what `to_dict` gave."""
        return cls(data["read"], data["removed"], Rounded(*data["rounded"]), data["entries"])


@dataclass(frozen=True)
class Admitted:
    """The cells that are taken of a block.

    Attributes
    ----------
    cells : IngestedCells
        Over the genes of the store.
    facts : CellFacts
    rows : int64, (n_taken,)
        Their rows in the file.
    tally : Tally
    """

    cells: IngestedCells
    facts: CellFacts
    rows: npt.NDArray[np.int64]
    tally: Tally


@dataclass(frozen=True)
class Admission:
    """What a block of one input goes through.

    Attributes
    ----------
    position_of : int32, (n_source_genes,)
        Storage position of each gene of the file, -1 for none.
    hashes : uint64, (n_store_genes,)
    classes : uint8, (n_source_genes,)
    filtered : FilteredObs or None
        None when every cell is taken.
    allow_rounding : float
    known : dict of str to array, (n_cells of the file,)
        Facts of whole cells that take the place of those which the counts tell.
    head : from `kernel.open_model`, or None
    threads : int
    """

    position_of: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    classes: npt.NDArray[np.uint8]
    filtered: FilteredObs | None = None
    allow_rounding: float = 0.0
    known: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    head: Any = None
    threads: int = 0

    def admit(self, block: CountBlock) -> Admitted | Violation:
        """Return the cells of a block that are taken, or the first value of any cell that is no raw count.

        Notes
        -----
        The kernel proves all cells; where some are removed, the others go through it once more, so that the
        statistics of genes are those of the cells that are taken.
        """
        block, rounded = round_block(block, self.allow_rounding)
        cells = self._convert(block)
        if isinstance(cells, Violation):
            return cells
        facts = measure_cells(cells, self.classes)
        if self.known:
            facts = self._better(facts, cells, block)
        tally = Tally(block.n_cells, {}, rounded, int(block.indptr[-1] - block.indptr[0]))
        if self.filtered is None:
            return Admitted(cells, facts, np.arange(block.start, block.stop), tally)
        taken, removed = self.filtered.taken(block.start, facts)
        if not taken.all():
            cells = self._convert(_cells_of(block, taken))
            assert isinstance(cells, IngestedCells), "cells that were proven are refused"
        rows = block.start + np.flatnonzero(taken)
        return Admitted(cells, facts.of(taken), rows, replace(tally, removed=removed))

    def _better(self, facts: CellFacts, cells: IngestedCells, block: CountBlock) -> CellFacts:
        """Return the facts of cells of which the input gives but some genes."""
        known = {name: values[block.start : block.stop] for name, values in self.known.items()}
        facts = replace(facts, **known)
        kept: npt.NDArray[np.float32] = np.full(block.n_cells, np.nan, np.float32)
        totals = facts.total_counts
        np.divide(cells.totals, totals, out=kept, where=totals > 0, casting="unsafe")
        return replace(facts, kept_share=kept)

    def _convert(self, block: CountBlock) -> IngestedCells | Violation:
        return convert_block(
            block,
            position_of=self.position_of,
            hashes=self.hashes,
            head=self.head,
            classes=self.classes,
            threads=self.threads,
        )


def _cells_of(block: CountBlock, taken: npt.NDArray[np.bool_]) -> CountBlock:
    sizes = np.diff(block.indptr)
    entries = np.repeat(taken, sizes)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[taken])])
    return CountBlock(block.start, indptr, block.indices[entries], block.data[entries], block.n_genes)
