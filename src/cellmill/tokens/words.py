"""Sentences of gene names and back (floor 5, tokens): what a language model of cells reads and writes. Knows text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import InputError
from cellmill.genes import Vocabulary

__all__ = ["GivenNames", "as_words", "clean_sentence", "expression_of_sentence", "word_counts"]

GivenNames = Vocabulary | Mapping[int, str] | Sequence[str]


def as_words(names: GivenNames) -> dict[int, str]:
    """Return the word of each token: its name in upper case.

    Parameters
    ----------
    names
        A vocabulary, whose symbols are taken, and the ids of genes that share one; a mapping of token to name; or the
        name of each token from 0 on.

    Raises
    ------
    InputError
        When two names are one word, which would then mean two genes; both are named.
    """
    if isinstance(names, Vocabulary):
        often = Counter(symbol.upper() for symbol in names.symbols)
        told = (
            gene if often[symbol.upper()] > 1 else symbol for gene, symbol in zip(names.ids, names.symbols, strict=True)
        )
        pairs: Iterable[tuple[int, str]] = zip(names.tokens.tolist(), told, strict=True)
    else:
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    own = {int(token): str(name) for token, name in pairs}
    words = {token: name.upper() for token, name in own.items()}
    if len(set(words.values())) < len(words):
        first: dict[str, int] = {}
        for token, word in words.items():
            if word in first:
                raise InputError(
                    f"names: tokens {first[word]} ({own[first[word]]!r}) and {token} ({own[token]!r}) are one word in "
                    "upper case, so a sentence could not tell the genes apart; give one of them its gene id for a name"
                )
            first[word] = token
    return words


def word_counts(counts: sparse.csr_array, names: Sequence[str]) -> dict[str, int]:
    """Return in how many cells each word has a value above 0, in the order of the columns.

    Raises
    ------
    InputError
        When two names are one word, or there is not one for each column.

    Examples
    --------
    >>> word_counts(sparse.csr_array(np.array([[1, 0], [2, 3]])), ["Cd3e", "Cd4"])
    {'CD3E': 2, 'CD4': 1}
    """
    if len(names) != counts.shape[1]:
        raise InputError(f"names must be one for each of the {counts.shape[1]} columns of counts, found {len(names)}")
    cells = np.bincount(counts.indices[counts.data > 0], minlength=len(names)).tolist()
    return dict(zip(as_words(names).values(), cells, strict=True))


def clean_sentence(
    sentence: str, vocabulary: Iterable[str], *, delimiter: str = " ", placeholder: str = "NOT_A_GENE"
) -> tuple[list[str], int]:
    """Return the words of a generated sentence, each gene once, and how many words were no genes.

    Words are put in upper case. One that is not in the vocabulary becomes the placeholder, which may come often. A gene
    that comes again is moved to the mean of its places, truncated; genes in the order in which they come first, each
    counted after those before it were moved.

    Examples
    --------
    >>> clean_sentence("A B C A JUNK D B A", "ABCDE")
    (['C', 'NOT_A_GENE', 'B', 'A', 'D'], 1)
    """
    known = {name.upper() for name in vocabulary}
    words = [word if word in known else placeholder for word in sentence.upper().split(delimiter)]
    replaced = words.count(placeholder)
    for word, often in Counter(words).items():
        if often > 1 and word != placeholder:
            places = [at for at, one in enumerate(words) if one == word]
            words = [one for one in words if one != word]
            words.insert(sum(places) // len(places), word)
    return words, replaced


def expression_of_sentence(
    sentence: str | Sequence[str],
    vocabulary: Sequence[str],
    *,
    slope: float,
    intercept: float,
    delimiter: str = " ",
) -> npt.NDArray[np.float32]:
    """Return the expression that a sentence stands for, float32 of the length of the vocabulary.

    The word of rank r, from 0, gets ``intercept + slope * log10(1 + r)``; genes that do not come, 0. Words are compared
    as they are written; of one that comes again the last rank holds. Other words count towards the ranks.

    Parameters
    ----------
    sentence
        A text, or the words that `clean_sentence` gives.

    Examples
    --------
    >>> expression_of_sentence("C A", ["A", "B", "C"], slope=-0.5, intercept=2.0).round(2).tolist()
    [1.850000023841858, 0.0, 2.0]
    """
    words = sentence.split(delimiter) if isinstance(sentence, str) else list(sentence)
    place: dict[str, int] = {name: at for at, name in enumerate(vocabulary)}
    made: npt.NDArray[Any] = np.zeros(len(vocabulary), dtype=np.float32)
    values = intercept + slope * np.log10(1 + np.arange(len(words)))
    for word, value in zip(words, values, strict=True):
        at = place.get(word)
        if at is not None:
            made[at] = value
    return made
