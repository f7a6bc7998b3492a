"""Tables of a model: a panel of genes, or a number for each gene (floor 5, tokens). Knows vocabularies, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import ConfigError, InputError
from cellmill.genes import Vocabulary
from cellmill.tokens.cells import MOST_TOKEN, check_vocabulary, check_whole
from cellmill.tokens.recipe import as_list, refuse_specials

__all__ = ["GeneTable", "as_panel_tokens", "slots_of"]

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GeneTable:
    """One whole number for each vocabulary token, with its hash; equal where the hashes are.

    Parameters
    ----------
    name
        The argument that errors speak of.
    given
        A number for each token from 0 on, or a mapping of gene id to number, which needs a vocabulary.
    missing
        The number of a gene that the table lacks; such a number in an array means the same.
    """

    numbers: I64 = field(compare=False, repr=False)
    missing: int
    hash: str

    def __init__(
        self,
        name: str,
        given: Mapping[str, int] | Sequence[int] | npt.NDArray[np.integer[Any]],
        vocabulary: Vocabulary | None,
        *,
        missing: int = -1,
    ) -> None:
        check_vocabulary(vocabulary)
        numbers = _by_id(name, given, vocabulary, missing) if isinstance(given, Mapping) else _by_token(name, given)
        numbers.setflags(write=False)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "missing", missing)
        object.__setattr__(self, "hash", xxhash.xxh3_128_hexdigest(numbers.astype("<i8").tobytes()))

    def of(self, tokens: I64) -> I64:
        """Return the number of each token, int64; `missing` where there is none."""
        inside = (tokens >= 0) & (tokens < len(self.numbers))
        if not len(self.numbers):
            return np.full(len(tokens), self.missing, dtype=np.int64)
        return np.where(inside, self.numbers[np.where(inside, tokens, 0)], self.missing)


def _by_token(name: str, given: Sequence[int] | npt.NDArray[np.integer[Any]]) -> I64:
    try:
        numbers = np.array(given)
    except ValueError:  # rows of several lengths
        raise ConfigError(f"{name} must be one whole number for each vocabulary token, found lists in it") from None
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ConfigError(
            f"{name} must be one whole number for each vocabulary token, or a mapping of gene id to whole number; "
            f"found shape {numbers.shape}, dtype {numbers.dtype}"
        )
    if numbers.dtype.kind == "u" and numbers.size and int(numbers.max()) > MOST_TOKEN:
        raise ConfigError(f"{name} must hold whole numbers that int64 can hold, found {numbers.max()}")
    return numbers.astype(np.int64)


def _by_id(name: str, given: Mapping[str, int], vocabulary: Vocabulary | None, missing: int) -> I64:
    if vocabulary is None:
        raise ConfigError(
            f"{name} is a mapping of gene ids, whose tokens a vocabulary must say: pass vocabulary=store.vocabulary"
        )
    place = vocabulary.index_of(given)
    if not (place >= 0).any():
        raise ConfigError(
            f"{name} names no gene of the vocabulary {vocabulary.name}, which has ids such as {vocabulary.ids[0]}; "
            f"found {', '.join(list(given)[:3]) or 'an empty mapping'}"
        )
    numbers = np.full(int(vocabulary.tokens.max()) + 1, missing, dtype=np.int64)
    numbers[vocabulary.tokens[place[place >= 0]]] = _by_token(name, list(given.values()))[place >= 0]
    return numbers


def as_panel_tokens(panel: Sequence[str] | Sequence[int], vocabulary: Vocabulary | None) -> tuple[int, ...]:
    """Return the token of each gene of a panel, -1 for an id that the vocabulary lacks.

    Raises
    ------
    ConfigError
        For an empty panel, one text, ids without a vocabulary, a gene named twice, or a panel of unknown ids alone.
    """
    check_vocabulary(vocabulary)
    named = as_list("panel", panel, "gene ids or tokens")
    if not named:
        raise ConfigError("panel is empty; name one gene at least, such as those of `cellmill hvg STORE`")
    if all(isinstance(one, str) for one in named):
        if vocabulary is None:
            raise ConfigError(
                "panel holds gene ids, whose tokens a vocabulary must say: pass vocabulary=store.vocabulary"
            )
        refuse_specials("panel", named, vocabulary)
        place = vocabulary.index_of(map(str, named))
        tokens = np.where(place >= 0, vocabulary.tokens[np.maximum(place, 0)], -1)
    elif all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in named):
        tokens = np.array([check_whole("panel", one, least=-1, most=MOST_TOKEN) for one in named], dtype=np.int64)
    else:
        raise ConfigError("panel must be gene ids (text) or vocabulary tokens (whole numbers), not both or others")
    known = tokens[tokens >= 0]
    if not len(known):
        raise ConfigError(f"no gene of the panel is in the vocabulary; it begins with {named[0]!r}")
    if vocabulary is not None:
        of_special = {token: special for special, token in vocabulary.specials.items()}
        refuse_specials("panel", [of_special[int(one)] for one in known if int(one) in of_special], vocabulary)
    told, often = np.unique(known, return_counts=True)
    if (often > 1).any():
        twice = named[int(np.flatnonzero(tokens == told[often > 1][0])[1])]
        raise ConfigError(f"panel names {twice!r} twice; a column has one meaning")
    return tuple(int(one) for one in tokens)


def slots_of(panel: tuple[int, ...], tokens: I64) -> npt.NDArray[np.int32]:
    """Return the place in the panel of each token, int32, -1 for those outside.

    Raises
    ------
    InputError
        When two tokens are one gene of the panel.
    """
    wanted = np.asarray(panel, dtype=np.int64)
    order = np.argsort(wanted, kind="stable")
    at = np.minimum(np.searchsorted(wanted[order], tokens), len(wanted) - 1)
    slots = np.where((tokens >= 0) & (wanted[order][at] == tokens), order[at], -1)
    often = np.bincount(slots[slots >= 0], minlength=1)
    if int(often.max()) > 1:
        raise InputError(f"genes has token {wanted[int(often.argmax())]} twice; each column must be another gene")
    return slots.astype(np.int32)
