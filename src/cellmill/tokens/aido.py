"""AIDO.Cell's input (floor 5, tokens): one log-normalised value for each gene of a list, and two slots of depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import PanelRows, tokenise_panel
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import check_choice, check_flag, check_whole, keep_plain
from cellmill.tokens.dense import DenseType
from cellmill.tokens.model_tokens import GivenTokens, ModelTokens
from cellmill.tokens.profiles import check_places, read_profiles, row_sums, whole_totals
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["AidoCell"]

LEAST_DEPTH = 5.0  # log10 of the total; shallower cells are shown as if they had 100,000 counts
MOST = 20.0
N_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class AidoCell:
    """``log1p(count / total * 1e4)`` of all genes of a list, then depth twice: `batch.values`, shape (n, n_genes + 2).

    Parameters
    ----------
    depth
        The total: of the genes in the "list", as the original has it; or of the whole "cell".
    dtype
        "float32"; or "bfloat16", as the original on a GPU: the float32 rounded to nearest, ties to even.
    n_genes
        Genes of the list.
    token_of
        Place in the list of each vocabulary token, -1 for none, or of gene ids (then with `vocabulary`). None: the
        tokens of columns are places already.
    genes
        Gene ids of a panel, in order; all genes when None.
    faithful
        Genes of an empty cell are NaN; without it 0.

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    In double, rounded once (the original's float32 steps differ in the last bit). Depth is ``max(log10(total), 5)``,
    and all is clamped at 20. `extra["measured"]`, bool[n_genes + 2], tells genes that are columns of `counts`, and the
    depth slots, from genes that are 0 because nobody looked. Source: genbio-ai/ModelGenerator `c4d0121`,
    `huggingface/aido.cell/aido_cell/utils/preprocessing.py`; what differs is listed in docs/recipes/aido-cell.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[6, 4], [0, 0]], dtype=np.uint32))
    >>> batch = AidoCell(n_genes=3).encode(counts, np.array([2, 0]), np.zeros(2, np.uint64))
    >>> batch.values.numpy().round(1).tolist()
    [[8.300000190734863, 0.0, 8.699999809265137, 5.0, 5.0], [0.0, 0.0, 0.0, 5.0, 5.0]]
    """

    depth: Literal["list", "cell"] = "list"
    dtype: DenseType = "float32"
    n_genes: int = 19264
    token_of: GivenTokens | None = field(default=None, repr=False, compare=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False, compare=False)
    genes: tuple[str, ...] | None = None
    faithful: bool = False
    table: ModelTokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("depth", self.depth, ("list", "cell"))
        check_choice("dtype", self.dtype, DenseType)
        check_whole("n_genes", self.n_genes, least=1)
        check_flag("faithful", self.faithful)
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        object.__setattr__(self, "table", ModelTokens(self.token_of, self.vocabulary))
        keep_plain(self)

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the column of `batch.values` that the gene of each vocabulary token has, -1 for none."""
        return self.table.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return the columns that are no genes, by name."""
        return {self.n_genes: "depth", self.n_genes + 1: "depth"}

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[Any] | None = None,
    ) -> TokenBatch:
        """Return the values of n cells; see `Recipe.encode`.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other, and tokens outside the list.
        """
        tokens = self.table.of(genes)
        check_places(tokens, self.n_genes)
        cells = read_profiles(counts, tokens, keys, faithful=self.faithful)
        total = row_sums(cells.indptr, cells.counts).astype(np.float64)
        if self.depth == "cell":
            total = whole_totals(counts, totals)
        shown = np.minimum(np.log10(np.maximum(total, 10.0**LEAST_DEPTH)), MOST).astype(np.float32)
        rows = PanelRows(
            totals=total,
            tail=np.repeat(shown[:, None], N_DEPTH, axis=1),
            n_genes=self.n_genes,
            out=np.empty((len(cells), self.n_genes + N_DEPTH), dtype=np.float32),
            clip=MOST,
        )
        tokenise_panel(cells, rows)
        if self.faithful:
            rows.out[total == 0, : self.n_genes] = np.nan
        measured = np.zeros(self.n_genes + N_DEPTH, dtype=bool)
        measured[tokens[tokens >= 0]] = True
        measured[self.n_genes :] = True
        return TokenBatch(
            values=torch.from_numpy(rows.out).to(getattr(torch, self.dtype)),
            n_columns=self.n_genes + N_DEPTH,
            extra={"measured": torch.from_numpy(measured)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the table of tokens by its hash."""
        return {
            "recipe": "aido_cell",
            **{name: getattr(self, name) for name in ("depth", "dtype", "n_genes", "faithful")},
            "token_of": self.table.hash,
            "genes": None if self.genes is None else list(self.genes),
        }
