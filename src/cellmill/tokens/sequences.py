"""Sequences of genes with a value each (floor 5, tokens): what scGPT, Tahoe-x1 and their kind have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    empty,
    mix64,
    tokenise_sequences,
)
from cellmill.kernel.token_cells import RATIO, cell_numbers
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import Pad, check_fraction, checked_measured, row_starts

__all__ = [
    "Choose",
    "Fit",
    "Heads",
    "Masking",
    "Per",
    "Shape",
    "as_ratios",
    "draw_ratios",
    "fit_rows",
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
        genes=empty(size, dtype=np.int64),
        values=empty(size, dtype=np.float32),
        lengths=empty(len(cells), dtype=np.int64),
        target=empty(size, dtype=np.float32) if masked else None,
        raw=empty(size, dtype=np.float32) if raw else None,
        mask=empty(size, dtype=np.uint8) if masked else None,
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
        genes=empty(size, dtype=np.int64),
        values=empty(size, dtype=np.float32),
        lengths=empty(len(cells), dtype=np.int64),
        raw=empty(size, dtype=np.float32) if raw else None,
        part_starts=part_starts,
        part_genes=empty(part_size, dtype=np.int64),
        part_target=empty(part_size, dtype=np.float32),
        part_raw=empty(part_size, dtype=np.float32) if raw else None,
        part_lengths=empty(len(cells), dtype=np.int64),
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


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What stands in front of the genes: tokens and values, both (n, n_head)."""

    tokens: I64
    values: F32

    def __len__(self) -> int:
        return int(self.tokens.shape[1])


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a family asks for beyond `SequenceRules`.

    Attributes
    ----------
    style : {"pcpt", "gen", "both"}
        Masked in place; no mask; or what is masked in a part of its own.
    masking : {"count", "bernoulli"}
    ratio : f64[n] or None
        None for no mask.
    fill : bool
        Fill short rows with genes that the cell lacks.
    fill_to_longest : bool
        Fill them as far as the longest row of the batch goes, as one original does, not to the most a row may have.
    measured : u8[n_sources, n_columns] and i64[n], or None
        Which genes each source measured, and the source of each cell; all genes of the axis when None.
    longest_less : int
        Tokens by which the length of the batch is measured too short, as one original does.
    raw : bool
    """

    style: str = "pcpt"
    masking: str = "count"
    ratio: F64 | None = None
    fill: bool = False
    fill_to_longest: bool = False
    measured: tuple[npt.NDArray[np.uint8], I64] | None = None
    longest_less: int = 0
    raw: bool = False


def fit_rows(
    cells: TokenCells,
    rules: SequenceRules,
    shape: Shape,
    heads: Heads,
    fit: Fit,
    *,
    n_mask: I64 | None = None,
    maskable: I64 | None = None,
) -> TokenBatch:
    """Return the rows of a batch, however its family fits, masks and splits them.

    Parameters
    ----------
    n_mask, maskable
        As in `SequencePlan`, for families that count in their own way.
    """
    n_head, keep = len(heads), rules.keep
    kept = np.minimum(cells.sizes, keep)
    own = cells.sizes - kept
    limit = min(int(cells.sizes.max(initial=0)) + n_head - fit.longest_less, shape.max_length)
    most = limit - n_head - kept if fit.longest_less else shape.max_length - n_head - kept
    parts = fit.style == "both" and fit.ratio is not None
    room = np.minimum(own, most)
    # fillers make every row as long as rows may be: a row as long as the longest would depend on its batch
    n_fill, fillers, source = None, None, None
    if fit.fill:
        fillers, source = _fillers(cells, fit.measured)
        to_longest = fit.fill_to_longest and shape.pad != "max"
        width = (limit if to_longest else shape.max_length) - n_head - kept
        n_fill = np.maximum(np.minimum(width - room, _free(cells, fillers, source)), 0)
    ratio = fit.ratio
    if ratio is not None and n_mask is None:
        n_mask = np.full(len(cells), -1 if fit.masking == "bernoulli" and not parts else -2, dtype=np.int64)
    plan = SequencePlan(
        room=room,
        head_tokens=heads.tokens,
        head_values=heads.values,
        n_mask=n_mask if ratio is not None else None,
        maskable=np.full(len(cells), 2**62, dtype=np.int64) if maskable is None else maskable,
        ratio=ratio,
        n_fill=n_fill,
        fillers=fillers,
        source=source,
    )
    if parts:
        return _in_parts(cells, rules, shape, plan, fit, limit)
    sizes = n_head + kept + room + (0 if n_fill is None else n_fill)
    if fit.longest_less:
        sizes = np.full(len(cells), limit)
    starts = shaped_starts(sizes, shape)
    masked = ratio is not None
    return make_sequences(
        cells, rules, plan, starts, flat=shape.pad == "none", masked=masked, raw=fit.raw, n_columns=len(cells.token_of)
    )


def _in_parts(
    cells: TokenCells, rules: SequenceRules, shape: Shape, plan: SequencePlan, fit: Fit, limit: int
) -> TokenBatch:
    """Return rows of which what is masked is a part of its own.

    A row of n genes has int(n * ratio) hidden ones, so the longest row is the longest in both parts.
    """
    assert plan.ratio is not None
    ratio, n_head = plan.ratio, plan.n_head
    kept = np.minimum(cells.sizes, rules.keep)
    genes = plan.room + (0 if plan.n_fill is None else plan.n_fill)
    hidden = np.floor(genes * ratio).astype(np.int64)
    seen, part = n_head + kept + genes - hidden, hidden
    if rules.split_first:  # both parts have the length that a row of the batch's length would give them
        part_length = int((limit - n_head - rules.keep) * float(ratio.max(initial=0.0)))
        seen = np.full(len(cells), limit - part_length)
        part = np.full(len(cells), part_length)
        fill = None if plan.n_fill is None else np.ones(len(cells), dtype=np.int64)
        plan = replace(plan, room=seen - n_head - kept, part_room=part, n_fill=fill)
    part_shape = replace(shape, max_length=int((shape.max_length - n_head) * float(ratio.max(initial=0.0))))
    return make_parts(
        cells,
        rules,
        plan,
        shaped_starts(seen, shape),
        shaped_starts(part, part_shape),
        flat=shape.pad == "none",
        raw=fit.raw,
        n_columns=len(cells.token_of),
    )


def _fillers(
    cells: TokenCells, measured: tuple[npt.NDArray[np.uint8], I64] | None
) -> tuple[npt.NDArray[np.uint8], I64]:
    """Return which genes may fill a cell of each source, those with a token, and the source of each cell."""
    known = cells.token_of >= 0
    if measured is None:
        return known[None].astype(np.uint8), np.zeros(len(cells), dtype=np.int64)
    genes, source = checked_measured(measured, len(cells), len(known))
    return np.ascontiguousarray((genes != 0) & known, dtype=np.uint8), source


def _free(cells: TokenCells, fillers: npt.NDArray[np.uint8], source: I64) -> I64:
    """Return how many genes each cell lacks of those that may fill it, int64[n]."""
    row = np.repeat(np.arange(len(cells)), cells.sizes)
    taken = np.bincount(row, weights=fillers[source[row], cells.columns], minlength=len(cells)).astype(np.int64)
    return np.asarray(fillers.sum(axis=1, dtype=np.int64)[source] - taken)
