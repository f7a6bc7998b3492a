"""A dense panel of highly variable genes; cells that express few of them are given others too (floor 5, tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import PanelOut, PanelPlan, TokenCells, count_other_genes, tokenise_panels
from cellmill.kernel.hvg_panels import PANEL_VALUES
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import MOST_TOKEN, Pad, as_cells, as_totals, check_choice, check_pad, check_whole, row_starts
from cellmill.tokens.dense import Transform
from cellmill.tokens.gene_tables import as_panel_tokens, slots_of
from cellmill.tokens.recipe import tell_no_memory

__all__ = ["HVGPanel", "Total"]

I64 = npt.NDArray[np.int64]
Total = Literal["cell", "panel"]


@dataclass(frozen=True)
class HVGPanel:
    """One value for each cell and gene of a panel, and the largest other genes of cells that express few of these.

    Parameters
    ----------
    panel
        The genes, in the order of their columns: ids, or vocabulary tokens; those of `cellmill hvg STORE`.
    vocabulary
        Needed for ids: the token of each. An id that it lacks keeps its column, of zeros.
    fill_to
        A cell that expresses k genes of the panel, fewer than these, also gets its `fill_to - k` largest other genes.
        By default as many as the panel has genes; 0 for none (then `Dense(genes=panel)` reads the panel alone).
    transform
        "log1p_cp10k", natural log1p of counts per 10,000; "cp10k"; "raw" counts.
    total
        10,000 of what: of the whole "cell", or of the counts in the "panel" alone, another recipe under one name.
    pad, multiple, pad_token
        Of the other genes: up to the batch's most, rounded up to a multiple ("longest"), up to `fill_to` ("max"), or
        one cell after the other ("none").

    Notes
    -----
    `batch.values` is float32[n, n_panel]: a column means one gene, always; a cell without counts gives zeros. Others
    are in `batch.extra`: `other_genes` int64[n, k], `other_values` float32[n, k] by count descending, equal counts by
    ascending token, and `other_lengths` int64[n]; with pad "none" flat, with `other_cu_seqlens` int32[n + 1]. Genes
    that the vocabulary lacks (token -1) count in the total and are never among the others.

    Source: the recipe of the scBaseCount downloader, github.com/pythonlearner1025/vcc at ef71d01, `train.py`
    (`HVGDataset._select_hvg_features`). It writes the other genes into columns of the panel that mean other genes, over
    values that are there: that is not offered.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[5, 0, 4, 1], [1, 2, 7, 0]], dtype=np.uint32))
    >>> recipe = HVGPanel([0, 1], transform="raw")
    >>> batch = recipe.encode(counts, np.arange(4), np.zeros(2, np.uint64))
    >>> batch.values.tolist(), batch.extra["other_genes"].tolist(), batch.extra["other_values"].tolist()
    ([[5.0, 0.0], [1.0, 2.0]], [[2], [0]], [[4.0], [0.0]])
    """

    panel: tuple[int, ...]
    fill_to: int
    transform: Transform
    total: Total
    pad: Pad
    multiple: int
    pad_token: int
    vocabulary: Vocabulary | None = field(repr=False, compare=False)
    vocabulary_hash: str | None

    def __init__(
        self,
        panel: Sequence[str] | Sequence[int],
        *,
        vocabulary: Vocabulary | None = None,
        fill_to: int | None = None,
        transform: Transform = "log1p_cp10k",
        total: Total = "cell",
        pad: Pad = "longest",
        multiple: int = 1,
        pad_token: int = 0,
    ) -> None:
        tokens = as_panel_tokens(panel, vocabulary)
        for name, value in (
            ("panel", tokens),
            ("fill_to", len(tokens) if fill_to is None else check_whole("fill_to", fill_to, least=0)),
            ("transform", check_choice("transform", transform, Transform)),
            ("total", check_choice("total", total, Total)),
            ("pad_token", check_whole("pad_token", pad_token, least=0, most=MOST_TOKEN)),
            ("vocabulary", vocabulary),
            ("vocabulary_hash", None if vocabulary is None else vocabulary.hash),
        ):
            object.__setattr__(self, name, value)
        check_pad(self, pad, multiple)

    @property
    def genes(self) -> None:
        """None: it wants all genes, for the totals and for the others."""
        return

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the column of `batch.values` that the gene of each vocabulary token has, -1 for none."""
        return slots_of(self.panel, tokens).astype(np.int64)

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the matrix and the other genes; see `Recipe.encode`. Nothing is random, so keys are not looked at.

        Raises
        ------
        NotRawCountsError
            For counts that are no whole numbers from 0 to 2^32 - 1.
        InputError
            For arguments that do not fit each other, or a gene of the panel that two columns hold.
        """
        cells = as_cells(counts, genes, keys)
        slot_of = slots_of(self.panel, cells.token_of)
        whole = as_totals(counts, totals)[0] if self.total == "cell" else _panel_totals(cells, slot_of)
        plan = PanelPlan(
            slot_of=slot_of,
            n_slots=len(self.panel),
            scales=np.divide(1e4, whole, out=np.zeros(len(whole)), where=whole > 0),
            values=PANEL_VALUES[self.transform],
            fill_to=self.fill_to,
            pad_token=self.pad_token,
        )
        return self._made(cells, plan)

    def _made(self, cells: TokenCells, plan: PanelPlan) -> TokenBatch:
        n = len(cells)
        lengths = np.zeros(n, dtype=np.int64)
        values = np.empty(n * plan.n_slots, dtype=np.float32)
        none: dict[str, Any] = {"other_genes": np.empty(0, np.int64), "other_values": np.empty(0, np.float32)}
        starts = np.zeros(n + 1, dtype=np.int64)
        count_other_genes(cells, plan, PanelOut(other_lengths=lengths, values=values, other_starts=starts, **none))
        starts = row_starts(lengths, self.fill_to, pad=self.pad, multiple=self.multiple)
        others, their = np.empty(int(starts[-1]), dtype=np.int64), np.empty(int(starts[-1]), dtype=np.float32)
        out = PanelOut(
            other_lengths=lengths, values=values, other_starts=starts, other_genes=others, other_values=their
        )
        tokenise_panels(cells, plan, out)
        flat = self.pad == "none"
        shape = (len(others),) if flat else (n, len(others) // n if n else 0)
        extra = {
            "other_genes": torch.from_numpy(others).view(shape),
            "other_values": torch.from_numpy(their).view(shape),
            "other_lengths": torch.from_numpy(lengths),
        }
        if flat:
            extra["other_cu_seqlens"] = torch.from_numpy(starts.astype(np.int32))
        matrix = torch.from_numpy(values).view(n, plan.n_slots)
        return TokenBatch(values=matrix, n_columns=plan.n_slots, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {
            "recipe": "hvg_panel",
            "panel": list(self.panel),
            "vocabulary": self.vocabulary_hash,
            "fill_to": self.fill_to,
            "transform": self.transform,
            "total": self.total,
            "pad": self.pad,
            "multiple": self.multiple,
            "pad_token": self.pad_token,
        }


def _panel_totals(cells: TokenCells, slot_of: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    inside = np.where(slot_of[cells.columns] >= 0, cells.counts, 0).astype(np.float64)
    upto = np.concatenate([[0.0], np.cumsum(inside)])  # whole numbers below 2^53, so that differences are exact
    return np.diff(upto[cells.indptr])
