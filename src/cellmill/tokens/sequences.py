"""Sequences of genes with a value each (floor 5, tokens): what scGPT, Tahoe-x1 and their kind have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from cellmill.errors import ConfigError
from cellmill.kernel import (
    SequenceNumbers,
    SequenceOut,
    SequencePlan,
    SequenceRules,
    TokenCells,
    mix64,
    tokenise_sequences,
)
from cellmill.kernel.token_cells import RATIO, cell_numbers
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import Pad, check_fraction, row_starts

__all__ = [
    "Choose",
    "Masking",
    "Per",
    "Shape",
    "as_ratios",
    "draw_ratios",
    "make_parts",
    "make_sequences",
    "shaped_starts",
]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Choose = Literal["uniform", "expression", "largest", "first"]
Masking = Literal["count", "bernoulli"]
Per = Literal["cell", "batch"]


@dataclass(frozen=True)
class Shape:
    """How rows become one tensor: most tokens of a row, "longest", "max" or "none", and the multiple of the length."""

    max_length: int
    pad: Pad = "longest"
    multiple: int = 1


def as_ratios(name: str, value: object) -> tuple[float, ...]:
    """Return the ratios that one is drawn from: of a number the number alone.

    Raises
    ------
    ConfigError
        For an empty list, and for anything outside 0 to 1.
    """
    many = list(value) if isinstance(value, (list, tuple)) else [value]
    if not many:
        raise ConfigError(f"{name} is an empty list; give a number from 0 to 1, or several to draw from")
    return tuple(check_fraction(name, one) for one in many)


def draw_ratios(ratios: tuple[float, ...], keys: npt.NDArray[np.uint64], *, per: Per = "cell") -> F64:
    """Return the ratio of each cell, float64[n]: drawn by its key, or one for all by the keys of the batch together."""
    if len(ratios) == 1 or not len(keys):
        return np.full(len(keys), ratios[0])
    if per == "batch":
        together = mix64(np.array([np.bitwise_xor.reduce(keys)], dtype=np.uint64))
        return np.full(len(keys), ratios[int(together[0] % np.uint64(len(ratios)))])
    return np.asarray(ratios)[(cell_numbers(keys, RATIO) % np.uint64(len(ratios))).astype(np.int64)]


def make_sequences(
    cells: TokenCells,
    rules: SequenceRules,
    plan: SequencePlan,
    starts: I64,
    *,
    flat: bool,
    masked: bool,
    raw: bool = False,
    numbers: SequenceNumbers | None = None,
    n_columns: int = 0,
) -> TokenBatch:
    """Return rows as a batch.

    Parameters
    ----------
    starts
        From `shaped_starts`.
    flat
        Whether rows were laid one after the other, so that tensors are flat and `cu_seqlens` says where they begin.
    masked
        Whether the batch carries `target` and `mask`.
    raw
        Whether it carries the counts, `extra["raw"]`.
    """
    size = int(starts[-1])
    out = SequenceOut(
        starts=starts,
        genes=np.empty(size, dtype=np.int64),
        values=np.empty(size, dtype=np.float32),
        lengths=np.empty(len(cells), dtype=np.int64),
        target=np.empty(size, dtype=np.float32) if masked else None,
        raw=np.empty(size, dtype=np.float32) if raw else None,
        mask=np.empty(size, dtype=np.uint8) if masked else None,
    )
    tokenise_sequences(cells, rules, plan, out, numbers=numbers)
    shape = _shape(starts, flat)
    return TokenBatch(
        values=_tensor(out.values, shape),
        genes=_tensor(out.genes, shape),
        target=None if out.target is None else _tensor(out.target, shape),
        mask=None if out.mask is None else _tensor(out.mask, shape).view(torch.bool),
        lengths=torch.from_numpy(out.lengths),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if flat else None,
        extra={} if out.raw is None else {"raw": _tensor(out.raw, shape)},
        n_columns=n_columns,
    )


def make_parts(
    cells: TokenCells,
    rules: SequenceRules,
    plan: SequencePlan,
    starts: I64,
    part_starts: I64,
    *,
    flat: bool,
    raw: bool = False,
    numbers: SequenceNumbers | None = None,
    n_columns: int = 0,
) -> TokenBatch:
    """Return what a generative model is shown as the batch, and what it is to make as `extra["gen_genes"]` and so on.

    `extra` holds gen_genes int64, gen_target float32, gen_lengths int64[n], with `raw` also raw and gen_raw float32.
    """
    size, part_size = int(starts[-1]), int(part_starts[-1])
    out = SequenceOut(
        starts=starts,
        genes=np.empty(size, dtype=np.int64),
        values=np.empty(size, dtype=np.float32),
        lengths=np.empty(len(cells), dtype=np.int64),
        raw=np.empty(size, dtype=np.float32) if raw else None,
        part_starts=part_starts,
        part_genes=np.empty(part_size, dtype=np.int64),
        part_target=np.empty(part_size, dtype=np.float32),
        part_raw=np.empty(part_size, dtype=np.float32) if raw else None,
        part_lengths=np.empty(len(cells), dtype=np.int64),
    )
    tokenise_sequences(cells, rules, plan, out, numbers=numbers)
    shape, part_shape = _shape(starts, flat), _shape(part_starts, flat)
    named: dict[str, Any] = {
        "gen_genes": _tensor(out.part_genes, part_shape),
        "gen_target": _tensor(out.part_target, part_shape),
        "gen_lengths": torch.from_numpy(out.part_lengths),
    }
    if raw:
        named |= {"raw": _tensor(out.raw, shape), "gen_raw": _tensor(out.part_raw, part_shape)}
    return TokenBatch(
        values=_tensor(out.values, shape),
        genes=_tensor(out.genes, shape),
        lengths=torch.from_numpy(out.lengths),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if flat else None,
        extra=named,
        n_columns=n_columns,
    )


def shaped_starts(sizes: I64, shape: Shape) -> I64:
    """Return `row_starts` of a shape."""
    return row_starts(sizes, shape.max_length, pad=shape.pad, multiple=shape.multiple)


def _shape(starts: I64, flat: bool) -> tuple[int, ...]:
    n = len(starts) - 1
    return (int(starts[-1]),) if flat else (n, int(starts[-1]) // n if n else 0)


def _tensor(array: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> torch.Tensor:
    assert array is not None
    return torch.from_numpy(array).view(shape)
