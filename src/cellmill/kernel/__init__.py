"""The kernel: arrays in, arrays out (floor 1).

Encodes cells into frames, gathers frames into batches, and computes keyed randomness. Two implementations give the
same bytes and numbers: `_native` (C++, threads inside, GIL released) and `reference` (NumPy). The native one is used
when it can be imported; the environment variable CELLMILL_KERNEL=reference forces the other, and
CELLMILL_KERNEL=native refuses to go on without the native one.
This module checks arguments and raises; it knows nothing of files, stores, vocabularies or torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.buffers import empty
from cellmill.kernel.checks import as_integers, check_cells, check_column_count, check_u64, count_threads
from cellmill.kernel.chromosome_sentences import SentenceOut, SentencePlan, tokenise_sentences
from cellmill.kernel.count_tokens import CountTokenOut, CountTokenPlan, tokenise_counts
from cellmill.kernel.encoded import EncodedRows
from cellmill.kernel.gathering import (
    COUNT_DTYPES,
    TRANSFORMS,
    Gathered,
    Panel,
    RowTable,
    frame_sizes,
    gather,
    gather_dense,
    gather_frames,
    gather_rows,
    gather_rows_dense,
)
from cellmill.kernel.hvg_panels import PanelOut, PanelPlan, count_other_genes, tokenise_panels
from cellmill.kernel.implementation import IMPLEMENTATION, chosen, native_error, vectors
from cellmill.kernel.ingest import IngestedCells, Refusal, WholeCells, ingest_cells
from cellmill.kernel.keys import derive_key
from cellmill.kernel.known_cells import known_cells
from cellmill.kernel.model import choose_head, count_histograms, fit_model, open_model
from cellmill.kernel.profiles import (
    PanelRows,
    ProfileNumbers,
    ProfileOut,
    ProfilePlan,
    ProfileRules,
    tokenise_panel,
    tokenise_profiles,
)
from cellmill.kernel.ranks import RANK_VALUES, RankOut, RankPlan, RankRules, rank_genes, rank_keys
from cellmill.kernel.sequences import (
    SequenceNumbers,
    SequenceOut,
    SequencePlan,
    SequenceRules,
    tokenise_sequences,
)
from cellmill.kernel.state_sentences import StateOut, StatePlan, tokenise_state
from cellmill.kernel.threads import default_threads, set_threads, using_threads
from cellmill.kernel.token_cells import TokenCells

__all__ = [
    "COUNT_DTYPES",
    "IMPLEMENTATION",
    "RANK_VALUES",
    "TRANSFORMS",
    "CountTokenOut",
    "CountTokenPlan",
    "EncodedRows",
    "Gathered",
    "IngestedCells",
    "Panel",
    "PanelOut",
    "PanelPlan",
    "PanelRows",
    "ProfileNumbers",
    "ProfileOut",
    "ProfilePlan",
    "ProfileRules",
    "RankOut",
    "RankPlan",
    "RankRules",
    "Refusal",
    "RowTable",
    "SentenceOut",
    "SentencePlan",
    "SequenceNumbers",
    "SequenceOut",
    "SequencePlan",
    "SequenceRules",
    "StateOut",
    "StatePlan",
    "TokenCells",
    "WholeCells",
    "choose_head",
    "count_histograms",
    "count_other_genes",
    "default_threads",
    "derive_key",
    "empty",
    "encode",
    "fingerprint",
    "fit_model",
    "frame_sizes",
    "gather",
    "gather_dense",
    "gather_frames",
    "gather_rows",
    "gather_rows_dense",
    "ingest_cells",
    "keyed_u64",
    "keyed_uniform",
    "known_cells",
    "mix64",
    "native_error",
    "open_model",
    "permute",
    "rank_genes",
    "rank_keys",
    "set_threads",
    "tokenise_counts",
    "tokenise_panel",
    "tokenise_panels",
    "tokenise_profiles",
    "tokenise_sentences",
    "tokenise_sequences",
    "tokenise_state",
    "using_threads",
    "vectors",
]

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


def encode(
    indptr: Integers, indices: Integers, values: Integers, *, n_genes: int, head: Any = None, threads: int = 0
) -> tuple[U8, U64]:
    """Return the frames of cells, one after the other, and where each begins.

    Parameters
    ----------
    indptr : integers, (n_cells + 1,)
        Cell i holds nonzeros indptr[i]:indptr[i + 1].
    indices : integers, (nnz,)
        Gene positions in storage order, ascending in each cell, each once, below `n_genes`.
    values : integers, (nnz,)
        Counts, 1 to 2^32-1.
    n_genes : int
        Number of genes of the store, at most 2^31-1.
    head : from `kernel.open_model`, optional
        Model of the store's head genes.
    threads : int
        0 takes `default_threads()`. The bytes do not depend on it.

    Returns
    -------
    frames : u8, (bytes,)
    offsets : u64, (n_cells + 1,)
        Frame i is frames[offsets[i]:offsets[i + 1]].

    Raises
    ------
    ValueError
        When cells are malformed; the message names the first bad cell.

    Notes
    -----
    The layout is docs/reference/format.md, "Frames". Smallest when genes come in order of
    detection rate; `benchmarks/frames.py` measures it.

    Examples
    --------
    >>> frames, offsets = encode(np.array([0, 2]), np.array([3, 7]), np.array([1, 5]), n_genes=10)
    >>> gather([frames], np.array([0]), offsets[:1], offsets[1:], n_genes=10)[1].tolist()
    [3, 7]
    """
    check_column_count(n_genes, "n_genes")
    indptr, indices, values = check_cells(indptr, indices, values)
    frames, offsets = chosen.encode(indptr, indices, values, n_genes, head, count_threads(threads))
    return frames, offsets


def fingerprint(indptr: Integers, indices: Integers, values: Integers, gene_hashes: U64, *, threads: int = 0) -> U64:
    """Return a hash of each cell's set of (gene, count) pairs, whatever the order of its genes.

    Parameters
    ----------
    indptr, indices, values
        Cells as in `encode`; indices need not ascend.
    gene_hashes : u64, (n_genes,)
        A hash of each gene's identity, such as xxh3_64 of its id, so that stores of other gene orders agree.

    Returns
    -------
    u64, (n_cells,)

    Raises
    ------
    ValueError
        When a gene has no hash, or the arrays contradict each other.

    Notes
    -----
    ``s`` is the sum modulo 2^64 of ``mix64(gene_hashes[gene] ^ mix64(count))`` over the cell's nonzeros, ``n`` their
    number, ``t`` the sum of their counts; the fingerprint is ``mix64(s ^ mix64(n ^ mix64(t)))``.
    """
    indptr, indices, values = check_cells(indptr, indices, values)
    hashes = check_u64(gene_hashes, len(gene_hashes), "gene_hashes")
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= len(hashes)):
        raise ValueError(
            f"genes must lie in 0..{len(hashes) - 1}, one hash each; found {indices.min()}..{indices.max()}"
        )
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise ValueError("indptr must start at 0, never fall, and end at the number of nonzeros")
    result: U64 = chosen.fingerprint(indptr, indices, values, hashes, count_threads(threads))
    return result


def permute(positions: Integers, n: int, key: int) -> U64:
    """Return where a keyed bijection of 0..n-1 sends each position.

    Parameters
    ----------
    positions : integers, (k,)
        Each in 0..n-1, in any order.
    n : int
        Size of the set, at most 2^62.
    key : int
        From `derive_key`; another key, another order.

    Returns
    -------
    u64, (k,)

    Raises
    ------
    ValueError
        When n or a position is out of range.

    Notes
    -----
    Constant memory, any position on its own. Each key gives a bijection; for a small n not all orders are equally
    likely. A balanced Feistel network of 8 rounds on 2h bits, 4^h being the smallest power of four that is at least
    n, walked until the image is below n. Round r sends (L, R) to
    ``(R, L ^ (mix64(R ^ mix64(key + r * 0x9E3779B97F4A7C15)) mod 2^h))``.

    Examples
    --------
    >>> sorted(permute(np.arange(5), 5, key=1).tolist())
    [0, 1, 2, 3, 4]
    """
    if not 0 <= n <= 1 << 62:
        raise ValueError(f"n must lie in 0..2^62, found {n}")
    if not 0 <= key < 1 << 64:
        raise ValueError(f"a key must lie in 0..2^64-1, found {key}")
    checked = check_u64(positions, len(positions), "positions")
    if len(checked) and int(checked.max()) >= n:
        raise ValueError(f"positions must lie in 0..{n - 1}, found {checked.max()}")
    result: U64 = chosen.permute(checked, n, key)
    return result


def mix64(x: Integers) -> U64:
    """Return one SplitMix64 step of each number: u64 in, u64 out; signed input is taken modulo 2^64."""
    result: U64 = chosen.mix64(np.ascontiguousarray(as_integers(x, "x").astype(np.uint64)))
    return result


def keyed_u64(key: int, uids: Integers, counter: int = 0) -> U64:
    """Return a random u64 per cell that depends on (key, uid, counter) alone.

    Parameters
    ----------
    key : int
        From `derive_key`.
    uids : integers, (k,)
        The cells.
    counter : int
        Which of the cell's numbers: 0, 1, 2, ...

    Returns
    -------
    u64, (k,)

    Notes
    -----
    ``mix64(mix64(mix64(key) + counter * 0x9E3779B97F4A7C15) ^ mix64(uid))``, modulo 2^64.
    For one key and counter, distinct uids give distinct numbers.
    """
    if not 0 <= key < 1 << 64 or not 0 <= counter < 1 << 64:
        raise ValueError(f"key and counter must lie in 0..2^64-1, found {key} and {counter}")
    result: U64 = chosen.keyed_u64(key, check_u64(uids, len(uids), "uids"), counter)
    return result


def keyed_uniform(key: int, uids: Integers, counter: int = 0) -> F64:
    """Return a random float64 in [0, 1) per cell: the upper 53 bits of `keyed_u64`, times 2^-53."""
    return (keyed_u64(key, uids, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53
