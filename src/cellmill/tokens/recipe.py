"""What every recipe offers (floor 5, tokens): counts in, tensors out. A recipe never opens a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.genes import DEFAULT_SPECIALS, Vocabulary
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import SMALLER, check_vocabulary

__all__ = ["Recipe", "as_list", "as_panel", "refuse_specials", "tell_no_memory"]

P = ParamSpec("P")
R = TypeVar("R")


def as_list(name: str, given: object, of: str) -> list[Any]:
    """Return an argument that must be a list, a tuple or an array.

    Raises
    ------
    ConfigError
        Naming the argument; also for one text, whose letters are no genes, and for a set, which has no order.
    """
    if isinstance(given, str):
        raise ConfigError(f"{name} must be a list of {of}, not the text {given!r}; write [{given!r}]")
    if not isinstance(given, (bytes, Mapping, Set)) and isinstance(given, Iterable):
        with suppress(TypeError):  # of an array without dimensions
            return list(given)
    raise ConfigError(f"{name} must be a list of {of}, found {given!r}")


def as_panel(genes: Sequence[str] | None, vocabulary: Vocabulary | None = None) -> tuple[str, ...] | None:
    """Return a panel of gene ids as a tuple; None for all genes.

    Raises
    ------
    ConfigError
        For what is no list of texts, and for names of special tokens.
    """
    check_vocabulary(vocabulary)
    if genes is None:
        return None
    panel = as_list("genes", genes, "gene ids")
    strange = [one for one in panel if not isinstance(one, str)]
    if strange:
        raise ConfigError(f"genes must be a list of gene ids, which are text; found {strange[0]!r} in it")
    refuse_specials("genes", panel, vocabulary)
    return tuple(str(one) for one in panel)


def refuse_specials(name: str, panel: Sequence[str], vocabulary: Vocabulary | None) -> None:
    """Check that no gene of a panel is a special token, which counts have no column for.

    Raises
    ------
    ConfigError
        Naming those that are.
    """
    known = DEFAULT_SPECIALS if vocabulary is None else vocabulary.specials
    found = [one for one in panel if one in known or (one.startswith("<") and one.endswith(">"))]
    if found:
        raise ConfigError(
            f"{name} must name genes alone, found the special tokens {', '.join(found[:5])}: leave them out; "
            "a recipe that needs one puts it in itself"
        )


def tell_no_memory(encode: Callable[P, R]) -> Callable[P, R]:
    """Return an `encode` whose want of memory is an `InputError` that says what to do."""

    @wraps(encode)
    def told(*args: P.args, **options: P.kwargs) -> R:
        try:
            return encode(*args, **options)
        except MemoryError as error:
            raise InputError(f"the tokens of this batch do not fit into memory: {SMALLER}. {error}".rstrip()) from error

    return told


class Recipe(Protocol):
    """A frozen configuration that turns counts into what one family of models is fed.

    Beside what is written here, a loader looks for: `obs_columns`, columns of obs whose labels `encode` is handed as
    `obs`; `vocabulary`, whose tokens genes get; `fused`, True for one that is handed counts which decode themselves
    when they are looked into, and no totals (they are the sums of counts); `wants_measured`, True for one that takes
    `measured`. Previews look for `numbers_of` and `own_names`, what stands in `batch.genes` where that is no token.
    """

    @property
    def genes(self) -> tuple[str, ...] | None:
        """The panel whose columns it wants, in order; None for all genes."""
        ...

    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells.

        Parameters
        ----------
        counts : csr_array, shape (n, n_columns), uint32
            Columns ascending in each row.
        genes : int64[n_columns]
            Vocabulary token of each column.
        keys : uint64[n]
            A number per cell, from (seed, epoch, uid): the only source of randomness.
        totals : int64[n] or None
            Counts of the whole cell; sums of `counts` when None.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        ...
