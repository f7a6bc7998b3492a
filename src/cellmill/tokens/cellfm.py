"""CellFM's input (floor 5, tokens): the expressed genes of a cell, log-normalised, some of them to be predicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import ProfileNumbers, ProfileRules, TokenCells
from cellmill.kernel.profiles import PROFILE_CHOICES, PROFILE_VALUES
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    Pad,
    check_flag,
    check_fraction,
    check_number,
    check_pad,
    check_whole,
    keep_plain,
    row_starts,
)
from cellmill.tokens.model_tokens import GivenTokens, ModelTokens
from cellmill.tokens.profiles import Wanted, make_profiles, read_profiles, refuse_token, row_sums, whole_totals
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["CellFM"]

F64 = npt.NDArray[np.float64]
PAD_TOKEN = 0


@dataclass(frozen=True, kw_only=True)
class CellFM:
    """Genes with ``log1p(count / T * 1e4)``: `batch.genes`, `batch.values`, `batch.target`, `batch.mask`.

    `batch.mask` says which genes carry loss, `extra["hidden"]` for which of them `batch.values` is 0; `extra["T"]`,
    float32[n], is the total T.

    Parameters
    ----------
    max_length
        Most genes of a row. Longer cells are drawn anew in every epoch: gene after gene without replacement, with
        probability in proportion to log1p(count).
    mask
        Share of a row's genes that carry loss, ``int(mask * n)``; None for no mask.
    hidden
        Share of those whose value is hidden, ``int(hidden * that)``; the others are shown and predicted all the same.
    cap
        Counts of a cell whose total, of all genes, is above this are divided by total / cap and rounded half to even;
        those that become 0 are left out. None for no cap.
    min_genes, max_genes
        For `keeps`: expressed genes of the cells that pre-training keeps.
    token_of
        The model's id of each vocabulary token, from 1 on, -1 for none, or of gene ids (then with `vocabulary`). None:
        the tokens of columns are the model's.
    pad, multiple
        "longest": to the longest row of the batch, rounded up to a multiple; "max": to `max_length`; "none": rows one
        after the other, with `batch.cu_seqlens`.
    genes
        Gene ids of a panel, in order; all genes when None.
    faithful
        In rows too short for the share to be a whole gene (fewer than 5) every gene carries loss; without it none does.

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    T is the sum over the genes that the model knows, after the cap, before any is left out. Padding has id and value 0.
    Source: biomed-AI/CellFM `7655797`, `data_process.py` (`SCrna`, `Prepare`); what differs is listed in
    docs/recipes/cellfm.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 5, 1, 4], [0, 0, 0, 0]], dtype=np.uint32))
    >>> batch = CellFM(mask=None).encode(counts, np.arange(1, 5), np.zeros(2, np.uint64))
    >>> batch.genes.tolist(), batch.values[0].numpy().round(2).tolist(), batch.extra["T"].tolist()
    ([[2, 3, 4], [0, 0, 0]], [8.520000457763672, 6.909999847412109, 8.289999961853027], [10.0, 0.0])
    """

    max_length: int = 2048
    mask: float | None = 0.2
    hidden: float = 0.8
    cap: float | None = 1e5
    min_genes: int = 200
    max_genes: int = 2048
    token_of: GivenTokens | None = field(default=None, repr=False, compare=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False, compare=False)
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    faithful: bool = False
    table: ModelTokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole("max_length", self.max_length, least=1)
        check_whole("min_genes", self.min_genes, least=0)
        check_whole("max_genes", self.max_genes, least=self.min_genes)
        if self.mask is not None:
            check_fraction("mask", self.mask)
        check_fraction("hidden", self.hidden)
        if self.cap is not None:
            check_number("cap", self.cap, above=0)
        check_pad(self, self.pad, self.multiple)
        check_flag("faithful", self.faithful)
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        object.__setattr__(self, "table", ModelTokens(self.token_of, self.vocabulary))
        keep_plain(self)

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return self.table.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return what the recipe puts into `batch.genes` itself, by name."""
        return {PAD_TOKEN: "<pad>"}

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[Any] | None = None,
        numbers: ProfileNumbers | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`.

        Parameters
        ----------
        numbers
            Random numbers to use instead of the keyed ones, one for each count that is left after the cap; for tests.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other.
        VocabularyError
            When a gene has the id of padding, 0.
        """
        cells = self._cells(counts, genes, keys, totals)
        total = row_sums(cells.indptr, cells.counts).astype(np.float64)
        room = np.minimum(cells.sizes, self.max_length)
        rules = ProfileRules(
            values=PROFILE_VALUES["log1p"],
            choose=PROFILE_CHOICES["log_count"],
            mask=self.mask or 0.0,
            hidden=self.hidden,
            all_if_none=self.faithful,
            pad_token=PAD_TOKEN,
        )
        starts = row_starts(room, self.max_length, pad=self.pad, multiple=self.multiple)
        wanted = Wanted(self.pad, masked=self.mask is not None)
        batch = make_profiles(cells, rules, room, starts, wanted, totals=total, numbers=numbers)
        extra = {**batch.extra, "T": torch.from_numpy(total.astype(np.float32))}
        return TokenBatch(**{**vars(batch), "extra": extra})

    def _cells(self, counts: sparse.csr_array, genes: Any, keys: Any, totals: npt.NDArray[Any] | None) -> TokenCells:
        cells = read_profiles(counts, self.table.of(genes), keys, faithful=self.faithful)
        refuse_token(cells, PAD_TOKEN, "The model's genes are numbered from 1")
        return cells if self.cap is None else _capped(cells, whole_totals(counts, totals) / self.cap)

    def keeps(
        self, counts: sparse.csr_array, genes: npt.NDArray[np.int64], *, totals: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return which cells pre-training keeps, bool[n]: `min_genes` to `max_genes` expressed; `encode` drops none."""
        sizes = self._cells(counts, genes, np.zeros(counts.shape[0], dtype=np.uint64), totals).sizes
        return (sizes >= self.min_genes) & (sizes <= self.max_genes)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the table of tokens by its hash."""
        left_out = ("token_of", "vocabulary", "table", "genes")
        return {
            "recipe": "cellfm",
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out},
            "token_of": self.table.hash,
            "genes": None if self.genes is None else list(self.genes),
        }


def _capped(cells: TokenCells, divisors: F64) -> TokenCells:
    """Return cells whose counts are divided, where the divisor is above 1, and rounded half to even."""
    if not (divisors > 1).any():
        return cells
    counts = np.rint(cells.counts / np.repeat(np.maximum(divisors, 1.0), cells.sizes)).astype(np.uint32)
    there = counts > 0
    upto = np.concatenate([[0], np.cumsum(there)])
    return TokenCells(upto[cells.indptr], cells.columns[there], counts[there], token_of=cells.token_of, keys=cells.keys)
