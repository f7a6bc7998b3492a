"""How rows of genes by value are compared with those of an original: exactly, but for the order of equal values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch

from cellmill.tokens import TokenBatch


def rows_of(batch: TokenBatch, what: torch.Tensor | None = None) -> list[np.ndarray]:
    """Return the tokens of each cell, or another tensor of theirs, without padding."""
    flat = (batch.genes if what is None else what).numpy()
    assert batch.lengths is not None
    return [row[:length] for row, length in zip(flat, batch.lengths.tolist(), strict=True)]


def same_but_for_ties(
    found: Sequence[int], expected: Sequence[int], value_of: Mapping[int, Sequence[float]], *, cut: bool
) -> None:
    """Assert that two rows of tokens differ within runs of one value alone, of which the last may be cut elsewhere."""
    blocks = [blocks_of(row, value_of) for row in (found, expected)]
    assert [value for value, _ in blocks[0]] == [value for value, _ in blocks[1]]
    for at, ((value, mine), (_, theirs)) in enumerate(zip(*blocks, strict=True)):
        if cut and at == len(blocks[0]) - 1:
            assert len(mine) == len(theirs)
            assert all(value in value_of[token] for token in mine)
        else:
            assert sorted(mine) == sorted(theirs)


def blocks_of(row: Sequence[int], value_of: Mapping[int, Sequence[float]]) -> list[tuple[float, list[int]]]:
    """Return the runs of equal values of a row, which must descend; a token that comes again has its next value."""
    left = defaultdict(list, {token: sorted(values) for token, values in value_of.items()})
    pairs = [(left[token].pop(), token) for token in map(int, row)]
    values = [value for value, _ in pairs]
    assert values == sorted(values, reverse=True)
    return [(value, [token for _, token in run]) for value, run in groupby(pairs, key=lambda pair: pair[0])]


def values_by_token(tokens: np.ndarray, values: np.ndarray) -> dict[int, list[float]]:
    """Return the values of each token of a cell."""
    made: dict[int, list[float]] = defaultdict(list)
    for token, value in zip(tokens.tolist(), values.tolist(), strict=True):
        made[token].append(value)
    return made
