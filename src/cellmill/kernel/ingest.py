"""Blocks of a source to frames in one call (floor 1, kernel): proven, mapped, put in order, measured, encoded.

Knows arrays. Must not know files, vocabularies, or how a refusal is told to the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import as_i64, as_integers, check_u64, count_threads
from cellmill.kernel.implementation import chosen

__all__ = ["IngestedCells", "Refusal", "WholeCells", "ingest_cells"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer[Any]]

# why a block was refused: the numbers that the implementations return
_VALUE, _INDEX, _SUM = 1, 2, 3


@dataclass(frozen=True)
class WholeCells:
    """The cells of a block over all genes of their source, whether they have a place in the store or not.

    Attributes
    ----------
    totals, most : i64, (n_cells,)
        Sum of the counts, and the largest one.
    detected : i32, (n_cells,)
        Genes with a count.
    of_class : i64, (n_cells, 3)
        Sums of the counts of genes of class 1, 2 and 4.
    """

    totals: I64
    most: I64
    detected: I32
    of_class: I64


@dataclass(frozen=True)
class IngestedCells:
    """The cells of a block over the genes of the store, encoded and measured.

    Attributes
    ----------
    frames : u8, (bytes,)
    offsets : u64, (n_cells + 1,)
        Frame i is frames[offsets[i]:offsets[i + 1]].
    totals : i64, (n_cells,)
        Sums of the counts.
    detected : i32, (n_cells,)
        Genes with a count.
    fingerprints : u64, (n_cells,)
        As `cellmill.kernel.fingerprint` defines them.
    umi_per_source_gene : u64, (n_source_genes,)
        Sum of counts of each gene of the source, also of those that have no place in the store.
    cells_per_gene : i64, (n_genes,)
        Cells with a count of each gene of the store.
    largest : int
        Largest count, 0 when there is none.
    nnz : int
    merged : int
        Entries that were summed into another one of the same cell and gene.
    whole : WholeCells or None
        Where classes of genes were given.
    """

    frames: U8
    offsets: U64
    totals: I64
    detected: I32
    fingerprints: U64
    umi_per_source_gene: U64
    cells_per_gene: I64
    largest: int
    nnz: int
    merged: int
    whole: WholeCells | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.totals)


@dataclass(frozen=True)
class Refusal:
    """The first cell of a block that was not taken.

    Attributes
    ----------
    why : {"value", "sum"}
        "value": the cell, with its repeated entries summed, holds a value that is no count from 0 to 2^32-1.
        "sum": genes of the source that share a place in the store add up to more than 2^32-1; told only where no cell
        of the block is refused for a value.
    cell : int
        Row in the block.
    total : int
        The sum that is too large; 0 for a value.
    """

    why: Literal["value", "sum"]
    cell: int
    total: int = 0


def ingest_cells(
    indptr: Integers,
    indices: Integers,
    values: npt.NDArray[Any],
    *,
    position_of: Integers,
    gene_hashes: U64,
    head: Any = None,
    classes: U8 | None = None,
    threads: int = 0,
) -> IngestedCells | Refusal:
    """Return a block of cells, as its source stores them, as frames over the genes of the store.

    Parameters
    ----------
    indptr : integers, (n_cells + 1,)
        Cell i holds entries indptr[i]:indptr[i + 1].
    indices : integers, (n_stored,)
        Genes of the source, in any order in a cell; a gene may come again.
    values : numbers or booleans, (n_stored,)
        Zeros may be stored.
    position_of : integers, (n_source_genes,)
        Place in the store of each gene of the source, -1 for none. Genes that share a place are summed.
    gene_hashes : u64, (n_genes,)
        As in `fingerprint`, in storage order.
    head : from `kernel.open_model`, optional
        Model of the store's head genes.
    classes : u8, (n_source_genes,), optional
        Of each gene of the source the sum of the classes 1, 2 and 4 that it is of: asks for `IngestedCells.whole`.
    threads : int
        0 takes `default_threads()`. The result does not depend on it.

    Returns
    -------
    IngestedCells or Refusal
        What was made of the cells; or, where one holds anything but counts, which it is.

    Raises
    ------
    ValueError
        When the arguments contradict each other, or an index is no gene of the source.

    Notes
    -----
    Linear in the entries; no cell is sorted by comparison. Every value is proven to be finite, whole, not negative and
    at most 2^32-1: nothing is rounded or clipped. Memory is some multiple of the block's.

    Examples
    --------
    >>> cells = ingest_cells(
    ...     np.array([0, 3]), np.array([2, 0, 1]), np.array([4.0, 1.0, 0.0]),
    ...     position_of=np.array([0, 1, -1]), gene_hashes=np.arange(2, dtype=np.uint64),
    ... )
    >>> cells.totals.tolist(), cells.umi_per_source_gene.tolist()
    ([1], [1, 0, 4])
    """
    hashes = check_u64(gene_hashes, len(gene_hashes), "gene_hashes")
    pointers, genes, stored = as_i64(indptr, "indptr"), _as_indices(indices), _as_numbers(values)
    if len(pointers) < 1:
        raise ValueError("indptr must have one entry more than there are cells, found none")
    if len(genes) != len(stored):
        raise ValueError(f"indices and values must be of one length, found {len(genes)} and {len(stored)}")
    if classes is not None and (classes.dtype != np.uint8 or len(classes) != len(position_of)):
        raise ValueError(f"classes must be uint8, one per gene of the source, found {classes.dtype}, {len(classes)}")
    positions, workers = _as_positions(position_of, len(hashes)), count_threads(threads)
    asked = None if classes is None or not len(classes) else np.ascontiguousarray(classes)
    refused, *results = chosen.ingest(pointers, genes, stored, positions, hashes, head, workers, asked)
    if refused is None:
        numbers, whole = results[:-1], results[-1]
        measured = None if classes is None else _whole(whole, len(pointers) - 1)
        return IngestedCells(*numbers, measured)  # type: ignore[call-arg]
    why, cell, number = refused
    if why == _INDEX:
        raise ValueError(
            f"indices must lie in 0..{len(position_of) - 1}, the genes of the source; "
            f"entry {number}, in cell {cell}, is {indices[number]}"
        )
    return Refusal("value", cell) if why == _VALUE else Refusal("sum", cell, number)


def _whole(found: tuple[I64, I64, I32, I64] | None, n_cells: int) -> WholeCells:
    if found is None:  # a source without genes, so without counts
        found = *np.zeros((2, n_cells), np.int64), np.zeros(n_cells, np.int32), np.zeros(3 * n_cells, np.int64)
    totals, most, detected, of_class = found
    return WholeCells(totals=totals, most=most, detected=detected, of_class=of_class.reshape(-1, 3))


def _as_indices(indices: Integers) -> Integers:
    """Return genes as i32, u32 or i64; without a copy where they are one of them."""
    checked = as_integers(indices, "indices")
    if checked.dtype in (np.int32, np.uint32):
        return np.ascontiguousarray(checked)
    return as_i64(checked, "indices")


def _as_numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values in a dtype that the implementations take; what is wider holds the same numbers."""
    checked = np.asarray(values)
    if checked.ndim != 1:
        raise ValueError(f"values must have one dimension, found shape {checked.shape}")
    kind = checked.dtype
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise ValueError(f"values must be integers, booleans or floats of at most 64 bits, found dtype {kind}")
    if kind.kind == "b":
        return np.ascontiguousarray(checked).view(np.uint8)
    if kind == np.float16:
        return checked.astype(np.float32)
    return np.ascontiguousarray(checked, dtype=kind.newbyteorder("="))


def _as_positions(position_of: Integers, n_genes: int) -> I32:
    checked = as_integers(position_of, "position_of")
    if len(checked) and (int(checked.min()) < -1 or int(checked.max()) >= n_genes):
        raise ValueError(
            f"position_of must lie in -1..{n_genes - 1}, the genes of the store; found {checked.min()}..{checked.max()}"
        )
    return np.ascontiguousarray(checked, dtype=np.int32)
