"""Discrete count tokens for masked diffusion, over a panel or over expressed genes (floor 5, tokens)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary
from cellmill.kernel import CountTokenOut, CountTokenPlan, TokenCells, tokenise_counts
from cellmill.kernel.reference.tokens import to_uniform
from cellmill.kernel.token_cells import RATIO, cell_numbers
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    Pad,
    as_cells,
    check_choice,
    check_fraction,
    check_pad,
    check_whole,
    checked_measured,
    row_starts,
    special_of,
)
from cellmill.tokens.gene_tables import as_panel_tokens, slots_of
from cellmill.tokens.recipe import as_list, tell_no_memory

__all__ = ["CountDiffusion", "Keep", "Schedule", "noise_of"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Schedule = Literal["linear", "cosine"]
Keep = Literal["uniform", "largest"]
MAX_LENGTH = 2048
N_COUNTS = 64
MOST_COUNTS = 1 << 20  # each is an edge that is kept, and a row of an embedding
MIN_TIME = 1e-3


@dataclass(frozen=True)
class CountDiffusion:
    """A count token for each gene, each masked by itself with a probability that the time of its cell says.

    Parameters
    ----------
    panel
        Genes of every row, in order: ids, or vocabulary tokens. Without it a row holds the expressed genes of its cell.
    vocabulary
        Needed for ids; says the token that pads genes.
    max_length
        Most expressed genes of a row, 2,048 unless said; not with a panel.
    keep
        Which genes of a longer cell: a "uniform" sample without replacement, or those with the "largest" counts; not
        with a panel.
    n_counts
        Count tokens are 0 to n_counts - 1, the count itself; the last one stands for all larger counts too. 64 unless
        said; not with edges.
    edges
        Instead of n_counts: ascending counts at which the next token begins; [1, 2, 4, 8] has tokens 0 to 4.
    schedule
        Probability that a token is still seen at time t: "linear", 1 - t; "cosine", 1 - cos(pi/2 (1 - t)).
    min_time
        Times are uniform in min_time to 1, one for each cell by its key, so that weights are bounded. 0.001 unless
        said; not with time.
    time
        One time for all cells instead, for evaluation: 0 masks nothing, 1 everything.
    pad, multiple
        Of expressed genes; not with a panel.

    Notes
    -----
    A batch holds int64 `genes`, `values` (as shown), `target`, bool `mask`; `extra` has float32 `time`, and `weight`,
    what the cross-entropy of the masked tokens of a cell is multiplied by: -a'(t) / (1 - a(t)) of the schedule a, that
    is 1 / t, or pi/2 tan(pi/2 (1 - t)). `mask_token` and `pad_token` come after the counts. A gene of the panel that
    the data lacks holds `pad_token`, is no zero, and is never masked; `lengths` counts it. A cell without counts is a
    row of zeros over a panel, else an empty row.

    Source: the absorbing-state process and its objective in continuous time, Shi et al. 2024, "Simplified and
    generalized masked diffusion for discrete data", arXiv:2406.04329, with its schedules "linear" and "cosine".

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[5, 0, 200, 1]], dtype=np.uint32))
    >>> recipe = CountDiffusion(panel=[0, 1, 2, 3], n_counts=64, time=0.5)
    >>> batch = recipe.encode(counts, np.arange(4), np.array([7], np.uint64))
    >>> batch.target.tolist(), batch.values.tolist(), recipe.mask_token
    ([[5, 0, 63, 1]], [[64, 0, 63, 64]], 64)
    >>> batch.extra["weight"].tolist()
    [2.0]
    """

    panel: tuple[int, ...] | None
    max_length: int
    keep: Keep
    edges: tuple[int, ...]
    schedule: Schedule
    min_time: float
    time: float | None
    pad: Pad
    multiple: int
    pad_gene: int
    vocabulary: Vocabulary | None = field(repr=False, compare=False)
    vocabulary_hash: str | None

    fused: ClassVar[bool] = True  # its kernel decodes cells itself

    def __init__(
        self,
        panel: Sequence[str] | Sequence[int] | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        max_length: int | None = None,
        keep: Keep = "uniform",
        n_counts: int | None = None,
        edges: Sequence[int] | None = None,
        schedule: Schedule = "linear",
        min_time: float | None = None,
        time: float | None = None,
        pad: Pad = "longest",
        multiple: int = 1,
    ) -> None:
        tokens = None if panel is None else as_panel_tokens(panel, vocabulary)
        if tokens is not None:
            _refuse_beside_panel(max_length, keep, pad, multiple)
        if time is not None and min_time is not None:
            raise ConfigError("min_time is the least of the times that are drawn; with time=... none is: leave one out")
        if min_time is not None and not check_fraction("min_time", min_time):
            raise ConfigError("min_time must be above 0: the weight of time 0 has no bound")
        for name, value in (
            ("panel", tokens),
            ("max_length", _length(tokens, max_length)),
            ("keep", check_choice("keep", keep, Keep)),
            ("edges", _edges(n_counts, edges)),
            ("schedule", check_choice("schedule", schedule, Schedule)),
            ("min_time", MIN_TIME if min_time is None else float(min_time)),
            ("time", None if time is None else check_fraction("time", time)),
            ("pad_gene", special_of(vocabulary, "<pad>")),
            ("vocabulary", vocabulary),
            ("vocabulary_hash", None if vocabulary is None else vocabulary.hash),
        ):
            object.__setattr__(self, name, value)
        check_pad(self, pad, multiple)

    @property
    def genes(self) -> None:
        """None: its genes are named by tokens."""
        return

    @property
    def mask_token(self) -> int:
        """What stands where a token is masked."""
        return len(self.edges) + 1

    @property
    def pad_token(self) -> int:
        """What stands where there is no count."""
        return len(self.edges) + 2

    @property
    def n_tokens(self) -> int:
        """Rows that an embedding of the count tokens needs."""
        return len(self.edges) + 3

    def bound_to(self, vocabulary: Vocabulary) -> CountDiffusion:
        """Return the recipe with the padding of a vocabulary, where it was given none and names no panel of tokens."""
        if self.vocabulary is not None or self.panel is not None:
            return self
        made = copy.copy(self)
        bound = {
            "vocabulary": vocabulary,
            "vocabulary_hash": vocabulary.hash,
            "pad_gene": special_of(vocabulary, "<pad>"),
        }
        for name, value in bound.items():
            object.__setattr__(made, name, value)
        return made

    @property
    def wants_measured(self) -> bool:
        """Whether `encode` is to be told which genes each source measured: those that it did not hold no zero."""
        return self.panel is not None

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what names the gene of each vocabulary token: its place in the panel, or the token."""
        return tokens if self.panel is None else slots_of(self.panel, tokens).astype(np.int64)

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
        measured: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None = None,
    ) -> TokenBatch:
        """Return the rows, the times and the weights; see `Recipe.encode`.

        Parameters
        ----------
        measured : uint8[n_sources, n_columns] and int64[n]
            For a panel: which genes each source measured, and the source of each cell; all columns when None.

        Raises
        ------
        NotRawCountsError
            For counts that are no whole numbers from 0 to 2^32 - 1.
        InputError
            For arguments that do not fit each other, or a gene of the panel that two columns hold.
        """
        del totals
        cells = as_cells(counts, genes, keys)
        times = self._times(cells.keys)
        hidden, weights = noise_of(self.schedule, times)
        batch = (
            self._expressed(cells, hidden) if self.panel is None else self._panel(cells, hidden, self.panel, measured)
        )
        drawn = {"time": times, "weight": weights}
        return replace(batch, extra={name: torch.from_numpy(one.astype(np.float32)) for name, one in drawn.items()})

    def _times(self, keys: npt.NDArray[np.uint64]) -> F64:
        if self.time is not None:
            return np.full(len(keys), self.time)
        return self.min_time + (1 - self.min_time) * to_uniform(cell_numbers(keys, RATIO))

    def _plan(self, hidden: F64, **more: Any) -> CountTokenPlan:
        return CountTokenPlan(
            edges=np.array(self.edges, dtype=np.uint32),
            mask_token=self.mask_token,
            pad_token=self.pad_token,
            pad_gene=self.pad_gene,
            ratio=hidden,
            largest=self.keep == "largest",
            **more,
        )

    def _panel(self, cells: TokenCells, hidden: F64, panel: tuple[int, ...], measured: Any) -> TokenBatch:
        slot_of = slots_of(panel, cells.token_of)
        column_of = np.full(len(panel), -1, dtype=np.int32)
        column_of[slot_of[slot_of >= 0]] = np.flatnonzero(slot_of >= 0)
        starts = np.arange(len(cells) + 1, dtype=np.int64) * len(panel)
        out = _empty(starts, genes=False)
        tokenise_counts(cells, self._plan(hidden, panel=column_of, slot_of=slot_of), out)
        if measured is not None:
            self._blank(out, column_of, *checked_measured(measured, len(cells), len(cells.token_of)))
        row = torch.tensor([token if token >= 0 else self.pad_gene for token in panel])
        return _batch(out, (len(cells), len(panel)), row.repeat(len(cells), 1), flat=False)

    def _blank(self, out: CountTokenOut, column_of: npt.NDArray[np.int32], genes: Any, source: Any) -> None:
        """Put padding where the source of a cell did not look: a zero there would be learned as one."""
        lacks = ~genes[:, np.maximum(column_of, 0)].astype(bool) & (column_of >= 0)
        if not lacks.any():
            return
        here = lacks[source].ravel()
        out.target[here] = out.values[here] = self.pad_token
        out.mask[here] = False

    def _expressed(self, cells: TokenCells, hidden: F64) -> TokenBatch:
        room = np.minimum(cells.sizes, self.max_length)
        starts = row_starts(room, self.max_length, pad=self.pad, multiple=self.multiple)
        out = _empty(starts, genes=True)
        tokenise_counts(cells, self._plan(hidden, room=room), out)
        n, flat = len(cells), self.pad == "none"
        shape = (int(starts[-1]),) if flat else (n, int(starts[-1]) // n if n else 0)
        assert out.genes is not None
        return _batch(out, shape, torch.from_numpy(out.genes).view(shape), flat=flat)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {
            "recipe": "count_diffusion",
            "panel": None if self.panel is None else list(self.panel),
            "vocabulary": self.vocabulary_hash,
            "max_length": self.max_length,
            "keep": self.keep,
            "edges": list(self.edges),
            "schedule": self.schedule,
            "min_time": self.min_time,
            "time": self.time,
            "pad": self.pad,
            "multiple": self.multiple,
            "pad_gene": self.pad_gene,
        }


def noise_of(schedule: Schedule, times: F64) -> tuple[F64, F64]:
    """Return how probable it is that a token is masked at each time, and the weight of the loss then.

    Notes
    -----
    With a(t) the probability that a token is seen: 1 - a(t), and -a'(t) / (1 - a(t)); 0 at time 0, where nothing is.

    Examples
    --------
    >>> [part.tolist() for part in noise_of("linear", np.array([0.0, 0.25, 1.0]))]
    [[0.0, 0.25, 1.0], [0.0, 4.0, 1.0]]
    """
    some = np.where(times > 0, times, 1.0)
    if schedule == "linear":
        hidden, weight = times, 1 / some
    else:
        hidden = np.cos(np.pi / 2 * (1 - times))
        weight = np.pi / 2 * np.tan(np.pi / 2 * (1 - some))
    return np.where(times > 0, hidden, 0.0), np.where(times > 0, weight, 0.0)


def _length(panel: tuple[int, ...] | None, max_length: int | None) -> int:
    if panel is not None:
        return len(panel)
    return MAX_LENGTH if max_length is None else check_whole("max_length", max_length, least=1)


def _refuse_beside_panel(max_length: object, keep: object, pad: object, multiple: object) -> None:
    """Refuse what is said of rows of expressed genes: rows of a panel all have its genes, so it would do nothing."""
    of_expressed = {"max_length": (max_length, None), "keep": (keep, "uniform"), "pad": (pad, "longest")}
    for name, (value, usual) in (of_expressed | {"multiple": (multiple, 1)}).items():
        if value is not usual and value != usual:
            raise ConfigError(
                f"{name} is for rows of expressed genes, and does nothing beside a panel, whose rows hold its genes: "
                f"leave out {name}={value!r}, or panel"
            )


def _edges(n_counts: int | None, edges: Sequence[int] | None) -> tuple[int, ...]:
    if edges is None:
        return tuple(
            range(1, check_whole("n_counts", N_COUNTS if n_counts is None else n_counts, least=2, most=MOST_COUNTS))
        )
    if n_counts is not None:
        raise ConfigError(
            f"n_counts={n_counts!r} does nothing beside edges, which say the tokens: leave one of them out"
        )
    made = tuple(check_whole("edges", edge, least=1, most=2**32 - 1) for edge in as_list("edges", edges, "counts"))
    if not made or any(a >= b for a, b in pairwise(made)):
        raise ConfigError(f"edges must be ascending counts below 2^32, one at least, found {list(edges)}")
    return made


def _empty(starts: I64, *, genes: bool) -> CountTokenOut:
    size = int(starts[-1])
    return CountTokenOut(
        starts=starts,
        values=np.empty(size, dtype=np.int64),
        target=np.empty(size, dtype=np.int64),
        mask=np.empty(size, dtype=np.uint8),
        lengths=np.empty(len(starts) - 1, dtype=np.int64),
        genes=np.empty(size, dtype=np.int64) if genes else None,
    )


def _batch(out: CountTokenOut, shape: tuple[int, ...], genes: torch.Tensor, *, flat: bool) -> TokenBatch:
    return TokenBatch(
        values=torch.from_numpy(out.values).view(shape),
        genes=genes,
        target=torch.from_numpy(out.target).view(shape),
        mask=torch.from_numpy(out.mask).view(shape).view(torch.bool),
        lengths=torch.from_numpy(out.lengths),
        cu_seqlens=torch.from_numpy(out.starts.astype(np.int32)) if flat else None,
    )
