"""What all recipes of sequences do first and last (floor 5, tokens): check counts and keys, and choose the length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import ConfigError, InputError, NotRawCountsError, VocabularyError, nearest
from cellmill.genes import DEFAULT_SPECIALS, Vocabulary
from cellmill.kernel import TokenCells, known_cells
from cellmill.tokens.kernel_counts import encoded_of, is_of_kernel

__all__ = [
    "MOST_BINS",
    "MOST_TOKEN",
    "SMALLER",
    "Pad",
    "as_cells",
    "as_totals",
    "check_choice",
    "check_flag",
    "check_fraction",
    "check_mask_value",
    "check_number",
    "check_pad",
    "check_vocabulary",
    "check_whole",
    "checked_measured",
    "keep_plain",
    "row_starts",
    "special_of",
]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
Pad = Literal["longest", "max", "none"]

MOST_LENGTH = 2**31 - 1  # rows and what is counted in them: flash attention takes their places as int32
MOST_BINS = 1 << 24  # a bin is a float32, which tells no larger ones apart
MOST_VALUE = float(np.finfo(np.float32).max)
MOST_TOKEN = 2**63 - 1  # tokens are int64
MOST_TOKENS = 1 << 44  # of a batch: 128 TiB of int64, which is all that a process can address
SMALLER = "take fewer cells at once (batch_size), a smaller max_length or multiple, or a panel of fewer genes"


def checked_counts(
    counts: sparse.csr_array, genes: npt.NDArray[np.integer[Any]], keys: U64
) -> tuple[sparse.csr_array, npt.NDArray[np.uint32], I64, U64]:
    """Return a matrix with one ascending entry for each gene of a cell, its counts, the tokens and the keys.

    Raises
    ------
    NotRawCountsError
        For counts that are negative, fractional, not finite or above 2^32 - 1, naming cell and column.
    InputError
        For arguments whose shapes or types do not fit each other, naming the argument.
    """
    tokens, numbers = _checked_arguments(counts, genes, keys)
    if is_of_kernel(counts):
        return counts, counts.data, tokens, numbers
    places = counts.indices
    if len(places) and not (int(places.min()) >= 0 and int(places.max()) < counts.shape[1]):
        raise InputError(f"counts has column {places.min()} or {places.max()}, outside 0..{counts.shape[1] - 1}")
    values = _whole_counts(counts)
    if not counts.has_canonical_format:  # sorted, and entries of one gene summed
        summed = sparse.csr_array((values.astype(np.int64), places.copy(), counts.indptr.copy()), shape=counts.shape)
        summed.sum_duplicates()
        counts, values = summed, _whole_counts(summed)
    return counts, values, tokens, numbers


def _checked_arguments(counts: sparse.csr_array, genes: npt.NDArray[np.integer[Any]], keys: U64) -> tuple[I64, U64]:
    """Return tokens and keys that fit a matrix."""
    if not sparse.issparse(counts) or counts.format != "csr":
        raise InputError(
            f"counts must be a scipy.sparse.csr_array of shape (cells, genes), found {type(counts).__name__}"
        )
    tokens = np.asarray(genes)
    if tokens.shape != (counts.shape[1],) or tokens.dtype.kind not in "iu":
        raise InputError(
            f"genes must be one whole number, a token, for each of the {counts.shape[1]} columns of counts; "
            f"found shape {tokens.shape}, dtype {tokens.dtype}"
        )
    numbers = np.asarray(keys)
    if numbers.shape != (counts.shape[0],) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"keys must be one number (uint64) for each of the {counts.shape[0]} cells of counts; "
            f"found shape {numbers.shape}, dtype {numbers.dtype}"
        )
    return tokens.astype(np.int64, copy=False), numbers.astype(np.uint64, copy=False)


def as_cells(
    counts: sparse.csr_array, genes: npt.NDArray[np.integer[Any]], keys: U64, *, zeros: bool = False
) -> TokenCells:
    """Return cells as kernels take them: genes without a token left out, and stored zeros too unless `zeros`.

    Parameters
    ----------
    counts : csr_array, shape (n, n_columns)
        Raw counts, of any number type.
    genes : int64[n_columns]
        Token of each column; -1 for a gene that the model does not know.
    keys : uint64[n]

    Raises
    ------
    NotRawCountsError
        For counts that are negative, fractional, not finite or above 2^32 - 1, naming cell and column.
    InputError
        For arguments whose shapes or types do not fit each other, naming the argument.
    """
    encoded = encoded_of(counts)
    if encoded is not None:
        tokens, numbers = _checked_arguments(counts, genes, keys)
        if int(tokens.min(initial=0)) >= 0:  # no gene is left out, so the sizes that are known hold
            return TokenCells.of_encoded(
                encoded, token_of=np.ascontiguousarray(tokens), keys=np.ascontiguousarray(numbers)
            )
    whole, values, tokens, numbers = checked_counts(counts, genes, keys)
    if len(tokens) and int(tokens.max()) < 0:
        raise VocabularyError(
            f"genes: none of the {len(tokens):,} columns of counts has a token, so every cell would be empty; "
            "the vocabulary, or the table of tokens, is that of other genes"
        )
    if is_of_kernel(whole):
        columns, values = np.ascontiguousarray(whole.indices, np.int32), np.ascontiguousarray(values, np.uint32)
        indptr = np.ascontiguousarray(whole.indptr, np.int64)
        tokens, numbers = np.ascontiguousarray(tokens), np.ascontiguousarray(numbers)
        cells = TokenCells.of_kernel(indptr, columns, values, token_of=tokens, keys=numbers)
    else:
        cells = TokenCells(whole.indptr, whole.indices, values, token_of=tokens, keys=numbers)
    # a recipe may have changed counts in place, to zeros too
    stray = int(tokens.min(initial=0)) < 0 or (not zeros and int(values.min(initial=1)) == 0)
    return known_cells(cells, zeros=zeros) if stray else cells


def _whole_counts(counts: sparse.csr_array) -> npt.NDArray[np.uint32]:
    values: npt.NDArray[Any] = counts.data
    if values.dtype == np.uint32:
        return cast(npt.NDArray[np.uint32], values)
    if values.dtype.kind not in "buif":
        raise InputError(f"counts must be numbers, found {values.dtype}")
    with np.errstate(invalid="ignore"):
        bad = ~((values >= 0) & (values < 2**32) & (values == np.floor(values)))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        cell = int(np.searchsorted(counts.indptr, at, side="right")) - 1
        raise NotRawCountsError(
            f"counts must be raw counts, whole numbers from 0 to 2^32-1; cell {cell}, column {int(counts.indices[at])} "
            f"holds {values[at]}. Recipes normalise by themselves: hand them what was counted."
        )
    return cast(npt.NDArray[np.uint32], values.astype(np.uint32))


def special_of(vocabulary: Vocabulary | None, name: str, *, instead: str | None = None) -> int:
    """Return the token of a special such as `<pad>`, of a vocabulary or of those that cellmill ships.

    Raises
    ------
    VocabularyError
        When the vocabulary has no such token.
    """
    check_vocabulary(vocabulary)
    specials: Mapping[str, int] = DEFAULT_SPECIALS if vocabulary is None else vocabulary.specials
    for wanted in (name, instead):
        if wanted is not None and wanted in specials:
            return specials[wanted]
    more = (
        " vocabulary.laid_out('scgpt') adds those of scGPT and leaves the genes their tokens." if not specials else ""
    )
    raise VocabularyError(
        f"the vocabulary has no special token {name}; it has {', '.join(specials) or 'none'}."
        f"{nearest(name, specials)}{more}"
    )


def as_totals(counts: sparse.csr_array, totals: npt.NDArray[Any] | None) -> tuple[F64, bool]:
    """Return counts of the whole cells, float64[n], and whether they were given as float32.

    Raises
    ------
    InputError
        For totals of another shape or kind, or that are negative or not finite.
    """
    if totals is None:
        return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel(), False
    given = np.asarray(totals)
    if given.shape != (counts.shape[0],) or given.dtype.kind not in "iuf":
        raise InputError(
            f"totals must be one number for each of the {counts.shape[0]} cells of counts; "
            f"found shape {given.shape}, dtype {given.dtype}"
        )
    whole = given.astype(np.float64)
    bad = ~(np.isfinite(whole) & (whole >= 0))
    if bad.any():
        cell = int(np.flatnonzero(bad)[0])
        raise InputError(f"totals must be finite and 0 or more; cell {cell} has {given[cell]}")
    return whole, given.dtype == np.float32


def row_starts(sizes: I64, max_length: int, *, pad: Pad, multiple: int = 1) -> I64:
    """Return where rows of so many tokens begin: all of one length, or with pad "none" one after the other.

    Raises
    ------
    InputError
        For more tokens than a batch can hold.

    Notes
    -----
    "longest": the longest row of the batch, rounded up to a multiple, at most `max_length` rounded up likewise; so a
    compiled model sees few shapes.

    Examples
    --------
    >>> row_starts(np.array([2, 5]), 100, pad="longest", multiple=4).tolist()
    [0, 8, 16]
    """
    if pad == "none":
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if int(starts[-1]) > MOST_LENGTH:
            raise InputError(
                f"{len(sizes)} cells have {starts[-1]:,} tokens together, and cu_seqlens, which is int32, counts to "
                f"{MOST_LENGTH:,}: {SMALLER}"
            )
        return starts
    length = max_length if pad == "max" else min(int(sizes.max(initial=0)), max_length)
    length = -(-length // multiple) * multiple
    if len(sizes) * length > MOST_TOKENS:
        raise InputError(f"{len(sizes)} cells of {length:,} tokens each fit in no memory: {SMALLER}")
    return np.arange(len(sizes) + 1, dtype=np.int64) * length


def check_whole(name: str, value: object, *, least: int, most: int = MOST_LENGTH) -> int:
    """Return an argument that must be a whole number; lengths and sizes at most 2^31-1, see `MOST_LENGTH`.

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, found {value!r}")
    if value > most:
        told = f"2^{most.bit_length()}-1" if most >= MOST_LENGTH else f"{most:,}"
        raise ConfigError(f"{name} must be at most {told}, found {value}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return an argument that must be True or False.

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, found {value!r}")
    return value


def check_number(name: str, value: object, *, above: float = -math.inf) -> float:
    """Return an argument that must be a number, finite in float32, as values of a batch are, and above a bound.

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    sound = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not sound or not abs(cast(float, value)) <= MOST_VALUE or not cast(float, value) > above:
        more = "" if above == -math.inf else f" above {above:g}"
        raise ConfigError(f"{name} must be a finite number{more}, found {value!r}")
    return float(cast(float, value))


def check_vocabulary(value: object) -> None:
    """Refuse what is no vocabulary, nor None.

    Raises
    ------
    ConfigError
    """
    if value is not None and not isinstance(value, Vocabulary):
        raise ConfigError(
            f"vocabulary must be a cellmill.Vocabulary, found {value!r}; load one with Vocabulary.load(path)"
        )


def check_fraction(name: str, value: object) -> float:
    """Return an argument that must be a number from 0 to 1.

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= float(value) <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, found {value!r}")
    return float(value)


def check_choice(name: str, value: object, known: Any) -> str:
    """Return an argument that must be one of some words, those of a Literal or a sequence.

    Raises
    ------
    ConfigError
        Naming the argument and the words.
    """
    words: Sequence[str] = get_args(known) or tuple(known)
    if not isinstance(value, str) or value not in words:
        raise ConfigError(f"{name} must be one of {', '.join(words)}, found {value!r}.{nearest(str(value), words)}")
    return str(value)


def keep_plain(recipe: Any) -> None:
    """Turn what a frozen recipe was given as numbers of NumPy into those of Python, which its record in JSON takes."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(recipe, field.name, value.item())


def check_mask_value(mask_value: float, pad_value: float, values: str, n_bins: int | None, *, zeros: bool) -> None:
    """Check that what stands for a masked value is no padding, and nothing that a gene can have.

    Parameters
    ----------
    values
        What genes have: "bins" 1 to n_bins - 1, "raw" counts, or "log1p" of counts.
    zeros
        Whether genes without counts are tokens too.

    Raises
    ------
    ConfigError
        Naming the arguments.
    """
    shown = float(np.float32(mask_value))
    if shown == float(np.float32(pad_value)):
        raise ConfigError(
            f"mask_value and pad_value must differ, found {mask_value!r} for both: a model could not tell them apart"
        )
    largest = n_bins - 1 if values == "bins" and n_bins is not None else math.inf
    if (0 < shown <= largest and (values == "log1p" or shown.is_integer())) or (zeros and shown == 0):
        told = f"bins are 0 to {largest}" if values == "bins" else f"values are {values}, 0 or more"
        raise ConfigError(
            f"mask_value {mask_value!r} is a value that a gene can have ({told}); take one below 0, such as -1"
        )


def check_pad(recipe: Any, pad: object, multiple: object) -> None:
    """Set `pad` and `multiple` of a frozen recipe, checked.

    Raises
    ------
    ConfigError
        Naming the argument, also for a multiple of rows that are not padded.
    """
    object.__setattr__(recipe, "pad", check_choice("pad", pad, Pad))
    object.__setattr__(recipe, "multiple", check_whole("multiple", multiple, least=1))
    if pad == "none" and multiple != 1:
        raise ConfigError(f"multiple must be 1 with pad='none', which pads nothing; found {multiple}")


def checked_measured(measured: Any, n_cells: int, n_columns: int) -> tuple[npt.NDArray[Any], I64]:
    """Return which genes each source measured, and the source of each cell.

    Raises
    ------
    InputError
        For arrays of other shapes and types.
    """
    genes, source = np.asarray(measured[0]), np.asarray(measured[1])
    if genes.ndim != 2 or genes.shape[1] != n_columns or genes.dtype.kind not in "bui":
        raise InputError(
            f"measured must begin with one row for each source and {n_columns} columns, 1 where a gene was measured; "
            f"found shape {genes.shape}, dtype {genes.dtype}"
        )
    if source.shape != (n_cells,) or source.dtype.kind not in "ui":
        raise InputError(f"measured must end with the source of each of {n_cells} cells; found shape {source.shape}")
    if len(source) and not 0 <= int(source.min()) <= int(source.max()) < len(genes):
        raise InputError(f"measured has {len(genes)} sources, and cells of {int(source.min())} to {int(source.max())}")
    return genes, source.astype(np.int64)
