"""Gathering frames into batches, sparse or dense, of all genes or of a panel (floor 1, kernel).

Checks arguments and raises; knows nothing of files, stores, vocabularies or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import as_i64, check_column_count, check_panel, check_rows, check_u64, count_threads
from cellmill.kernel.faults import COUNT_KIND, count_kind_error, frame_error
from cellmill.kernel.implementation import chosen

__all__ = [
    "COUNT_DTYPES",
    "TRANSFORMS",
    "Gathered",
    "Panel",
    "RowTable",
    "frame_sizes",
    "gather",
    "gather_dense",
    "gather_frames",
    "gather_rows",
    "gather_rows_dense",
]

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer[Any]]

TRANSFORMS = ("raw", "cp10k", "log1p_cp10k")
"""What `gather_dense` can make of counts: counts, counts per 10,000, and the natural log of 1 + counts per 10,000."""

COUNT_DTYPES = ("uint32", "int32", "float32")
"""What counts can be written as; int32 holds them up to 2^31 - 1, float32 exactly up to 2^24."""


class Panel:
    """Which genes a batch keeps, and as which columns: checked once, used for many batches.

    Parameters
    ----------
    column_of : integers, (n_genes,)
        Output column of each gene, -1 for genes to drop. No column may be named twice.
    n_genes : int
        Number of genes of the store.
    n_columns : int, optional
        Number of output columns; by default one more than the largest in `column_of`.

    Raises
    ------
    ValueError
        When a column is out of range or named twice.
    """

    def __init__(self, column_of: Integers, *, n_genes: int, n_columns: int | None = None) -> None:
        checked, width = check_panel(column_of, n_genes, n_columns)
        if checked is None:
            raise ValueError("a panel needs the column of each gene")
        self.column_of: I32 = checked
        self.n_columns = width
        self.made: Any = chosen.Panel(checked, width)

    def __reduce__(self) -> tuple[Any, ...]:
        return _panel_again, (self.column_of, self.n_columns)

    def __len__(self) -> int:
        return int((self.column_of >= 0).sum())

    def __repr__(self) -> str:
        return f"Panel({len(self)} of {len(self.column_of)} genes, {self.n_columns} columns)"


def _panel_again(column_of: I32, n_columns: int) -> Panel:
    return Panel(column_of, n_genes=len(column_of), n_columns=n_columns)


class RowTable:
    """Where the frames of a store's cells lie, by row id; shards are put in one by one, when they are first needed.

    Parameters
    ----------
    firsts : integers, (n_shards + 1,)
        Row id of each shard's first cell, and at the end the number of cells.
    """

    def __init__(self, firsts: Integers) -> None:
        self.made: Any = chosen.RowTable(as_i64(firsts, "firsts"))

    def put(self, shard: int, frames: U8, starts: U32, steps: U16) -> None:
        """Put a shard in.

        Parameters
        ----------
        frames : u8, (bytes,)
            Kept for the life of the table; a mapped file does.
        starts, steps : u32, u16
            Without steps `starts` has n_cells + 1 entries, where each frame begins and the last one ends. With
            n_cells + 1 steps frame i begins at starts[i // 16] + steps[i].

        Raises
        ------
        ValueError
            When the arrays do not fit the number of cells.
        """
        self.made.put(shard, np.asarray(frames), np.asarray(starts), np.asarray(steps))

    def missing(self, rows: I64) -> list[int]:
        """Return the shards, ascending, that hold some of these rows and were not put in.

        Raises
        ------
        IndexError
            For a row that the table does not have.
        """
        shards: list[int] = self.made.missing(rows)
        return shards

    def put_numbers(self, shard: int, numbers: U64) -> None:
        """Put a number for each cell of a shard in, u64 (n_cells,), apart from its frames; kept for the table's life.

        Raises
        ------
        ValueError
            When there is not one for each cell.
        """
        self.made.put_numbers(shard, np.ascontiguousarray(numbers, dtype=np.uint64))

    def missing_numbers(self, rows: I64) -> list[int]:
        """Return the shards, ascending, that hold some of these rows and whose numbers were not put in.

        Raises
        ------
        IndexError
            For a row that the table does not have.
        """
        shards: list[int] = self.made.missing_numbers(rows)
        return shards

    def numbers(self, rows: I64) -> U64:
        """Return the number of each row, u64 (m,), whose shards' were put in.

        Raises
        ------
        IndexError
            For a row that the table does not have.
        ValueError
            For a row of a shard whose numbers were not put in.
        """
        numbers: U64 = self.made.numbers(rows)
        return numbers

    def will_need(self, rows: I64) -> None:
        """Ask the system to read the frames of these rows from disk, without waiting; their shards must be there."""
        self.made.will_need(rows)


class Gathered(NamedTuple):
    """A batch of cells as CSR.

    Attributes
    ----------
    indptr : i64, (m + 1,)
    indices : i32, (nnz,)
        Ascending in each row.
    values : u32, i32 or f32, (nnz,)
    totals : u64, (m,) or None
        Sum of all counts of each cell, those of dropped genes too.
    """

    indptr: I64
    indices: I32
    values: npt.NDArray[Any]
    totals: U64 | None


def gather_rows(
    table: RowTable,
    rows: I64,
    *,
    n_genes: int,
    head: Any = None,
    panel: Panel | None = None,
    dtype: str = "uint32",
    totals: bool = False,
    threads: int = 0,
) -> Gathered:
    """Return a batch of cells as CSR, in the order of the rows asked for.

    Parameters
    ----------
    table
        Holds the shards of all rows.
    rows : i64, (m,)
        Row ids, any order, repeats allowed.
    n_genes
        Number of genes of the store.
    head
        Model of the store's head genes, from `kernel.open_model`; None where it has none.
    panel
        All genes when None.
    dtype
        One of `COUNT_DTYPES`.
    totals
        Whether to sum the counts of each cell too.
    threads
        0 takes `default_threads()`. The result does not depend on it.

    Raises
    ------
    FrameError
        For the first row whose bytes are not a frame; `.position` is the row.
    InputError
        For the first row with a count that `dtype` does not hold exactly; `.position` is the row.
    IndexError
        For a row that the table does not have.

    Notes
    -----
    One call per batch, nothing per cell in Python; large results lie in buffers that are used again when the arrays
    are dropped. Every byte is checked before it is used.
    """
    made = None if panel is None else panel.made
    fault, *arrays = chosen.gather_rows(
        table.made, rows, n_genes, head, made, _kind(dtype), totals, count_threads(threads)
    )
    if fault is not None:
        raise _error(fault, n_genes, dtype)
    return Gathered(*arrays)


def gather_rows_dense(
    table: RowTable,
    rows: I64,
    *,
    n_genes: int,
    head: Any = None,
    panel: Panel | None = None,
    transform: str = "raw",
    totals: Integers | None = None,
    out: F32 | None = None,
    totals_out: U64 | None = None,
    threads: int = 0,
) -> F32:
    """Return a batch of cells as a dense float32 matrix, (m, n_columns); as `gather_dense`, by row ids.

    `totals_out`, u64 (m,), is filled with the sum of all counts of each cell, where it is given.
    """
    made = None if panel is None else panel.made
    result = _dense_out(out, (len(rows), n_genes if panel is None else panel.n_columns))
    divisors = None if totals is None else check_u64(totals, len(rows), "totals")
    fault = chosen.gather_rows_dense(
        table.made,
        rows,
        n_genes,
        head,
        made,
        _transform(transform),
        divisors,
        result,
        totals_out,
        count_threads(threads),
    )
    if fault is not None:
        raise _error(fault, n_genes, "float32")
    return result


def gather_frames(
    shards: Sequence[U8],
    shard_of: Integers,
    start: Integers,
    stop: Integers,
    *,
    n_genes: int,
    head: Any = None,
    panel: Panel | Integers | None = None,
    n_columns: int | None = None,
    dtype: str = "uint32",
    totals: bool = False,
    threads: int = 0,
) -> Gathered:
    """Return a batch of cells as CSR, in the order of the rows asked for; frames are named by their bytes.

    Parameters
    ----------
    shards : sequence of u8 arrays
        Bytes of the shards; mapped files do. Only those that are named by `shard_of` are touched.
    shard_of, start, stop : integers, (m,)
        The frame of row i is shards[shard_of[i]][start[i]:stop[i]].
    n_genes : int
        Number of genes of the store.
    head : from `kernel.open_model`, optional
        Model of the store's head genes.
    panel : Panel, or integers (n_genes,), optional
        Output column of each gene, -1 for genes to drop. No column may be named twice.
    n_columns : int, optional
        Number of output columns; by default one more than the largest in `panel`, or `n_genes`.
    dtype, totals, threads
        As in `gather_rows`.

    Raises
    ------
    FrameError
        For the first row whose bytes are not a frame; `.position` is the row.
    InputError
        For the first row with a count that `dtype` does not hold exactly; `.position` is the row.
    ValueError
        When the arguments contradict each other.
    """
    shard_of, start, stop = check_rows(shards, shard_of, start, stop)
    made, _ = _panel(panel, n_genes, n_columns)
    fault, *arrays = chosen.gather(
        shards, shard_of, start, stop, n_genes, head, made, _kind(dtype), totals, count_threads(threads)
    )
    if fault is not None:
        raise _error(fault, n_genes, dtype)
    return Gathered(*arrays)


def frame_sizes(
    shards: Sequence[U8], shard_of: Integers, start: Integers, stop: Integers, *, n_genes: int, head: Any = None
) -> I64:
    """Return how many nonzeros each frame says it holds, i64 (m,); arguments and errors are those of `gather_frames`.

    Only the first bytes of each frame are read, so that memory for a batch can be bounded before it is decoded.
    """
    shard_of, start, stop = check_rows(shards, shard_of, start, stop)
    fault, sizes = chosen.frame_sizes(shards, shard_of, start, stop, n_genes, head)
    if fault is not None:
        raise frame_error(*fault, n_genes=n_genes)
    result: I64 = sizes
    return result


def gather(
    shards: Sequence[U8],
    shard_of: Integers,
    start: Integers,
    stop: Integers,
    *,
    n_genes: int,
    head: Any = None,
    panel: Panel | Integers | None = None,
    n_columns: int | None = None,
    threads: int = 0,
) -> tuple[I64, I32, U32]:
    """Return (indptr, indices, values) of a batch; `gather_frames` in its simplest form.

    Returns
    -------
    indptr : i64, (m + 1,)
    indices : i32, (nnz,)
        Ascending in each row.
    values : u32, (nnz,)
    """
    got = gather_frames(
        shards, shard_of, start, stop, n_genes=n_genes, head=head, panel=panel, n_columns=n_columns, threads=threads
    )
    return got.indptr, got.indices, got.values


def gather_dense(
    shards: Sequence[U8],
    shard_of: Integers,
    start: Integers,
    stop: Integers,
    *,
    n_genes: int,
    head: Any = None,
    panel: Panel | Integers | None = None,
    n_columns: int | None = None,
    transform: str = "raw",
    totals: Integers | None = None,
    out: F32 | None = None,
    totals_out: U64 | None = None,
    threads: int = 0,
) -> F32:
    """Return a batch of cells as a dense float32 matrix; frames are named by their bytes.

    Parameters
    ----------
    shards, shard_of, start, stop, n_genes, head, panel, n_columns, threads
        As in `gather_frames`.
    transform : {"raw", "cp10k", "log1p_cp10k"}
        Counts; 10,000 x count / total; or the natural log of 1 plus that. An empty cell gives zeros.
    totals : integers, (m,), optional
        What to divide by; by default each cell's sum of counts over all genes, also those the panel drops.
    out : f32, (m, n_columns), optional
        Filled and returned when given; C order.
    totals_out : u64, (m,), optional
        Filled with the sum of all counts of each cell.

    Returns
    -------
    f32, (m, n_columns)

    Raises
    ------
    FrameError
        For the first row whose bytes are not a frame; `out` is then undefined.
    ValueError
        When the arguments contradict each other.

    Notes
    -----
    Computed in float64 and rounded once.
    """
    kind = _transform(transform)
    shard_of, start, stop = check_rows(shards, shard_of, start, stop)
    made, columns = _panel(panel, n_genes, n_columns)
    result = _dense_out(out, (len(start), columns))
    divisors = None if totals is None else check_u64(totals, len(start), "totals")
    fault = chosen.gather_dense(
        shards, shard_of, start, stop, n_genes, head, made, kind, divisors, result, totals_out, count_threads(threads)
    )
    if fault is not None:
        raise _error(fault, n_genes, "float32")
    return result


def _kind(dtype: str) -> int:
    if dtype not in COUNT_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(COUNT_DTYPES)}, found {dtype!r}")
    return COUNT_DTYPES.index(dtype)


def _transform(transform: str) -> int:
    if transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, found {transform!r}")
    return TRANSFORMS.index(transform)


def _panel(panel: Panel | Integers | None, n_genes: int, n_columns: int | None) -> tuple[Any, int]:
    """Return the implementation's panel (None for all genes) and the number of columns."""
    if panel is None:
        return None, check_panel(None, n_genes, n_columns)[1]
    if not isinstance(panel, Panel):
        panel = Panel(panel, n_genes=n_genes, n_columns=n_columns)
    elif n_columns not in (None, panel.n_columns):
        raise ValueError(f"the panel has {panel.n_columns} columns, n_columns says {n_columns}")
    check_column_count(n_genes, "n_genes")
    if len(panel.column_of) != n_genes:
        raise ValueError(f"the panel is of {len(panel.column_of)} genes, n_genes says {n_genes}")
    return panel.made, panel.n_columns


def _dense_out(out: F32 | None, shape: tuple[int, int]) -> F32:
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable float32 array in C order of shape {shape}, found {out.dtype} {out.shape}"
        )
    return out


def _error(fault: tuple[int, int], n_genes: int, dtype: str) -> Exception:
    position, code = fault
    if code == COUNT_KIND:
        return count_kind_error(position, dtype)
    return frame_error(position, code, n_genes=n_genes)
