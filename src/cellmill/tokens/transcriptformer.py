"""TranscriptFormer's input (floor 5, tokens): the expressed genes of a cell with their raw counts, and its assay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary
from cellmill.kernel import ProfileNumbers, ProfileRules, TokenCells
from cellmill.kernel.profiles import PROFILE_CHOICES, PROFILE_ORDERS, PROFILE_VALUES
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    MOST_TOKEN,
    Pad,
    check_choice,
    check_flag,
    check_number,
    check_pad,
    check_whole,
    keep_plain,
    row_starts,
)
from cellmill.tokens.context import Obs, check_column, ids_of, labels_of
from cellmill.tokens.model_tokens import GivenTokens, ModelTokens
from cellmill.tokens.profiles import Wanted, make_profiles, read_profiles, refuse_token, row_sums
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["TranscriptFormer"]

Order = Literal["axis", "count", "random"]
Truncate = Literal["sample", "order"]
ORDERS = {"axis": "axis", "count": "count", "random": "keyed"}


@dataclass(frozen=True, kw_only=True)
class TranscriptFormer:
    """Expressed genes with clipped counts: `batch.genes`, `batch.values`; the assay's token in `extra["assay"]`.

    Parameters
    ----------
    max_length
        Most genes of a row; with the assay's token a multiple of 128 for the published models.
    order
        Genes as the "axis" has them, by "count" descending (equal ones by token), or in "random" order.
    truncate
        Which genes stay in a row that is too short: a uniform "sample", new in every epoch; or the first ones in
        "order", which loses whatever the file has last. None: "sample", with `faithful` "order".
    zeros
        "drop" genes that a cell does not express; or "keep" them behind the others, with count 0, as far as they fit.
    normalize_to
        Counts of a row are scaled to this sum, of the genes that stay; None for raw counts. Before clipping.
    clip
        Largest value; None for none.
    assays, assay_column
        Token of each assay, with "unknown" for all others; read from this column of `obs`.
    min_genes, outliers
        For `keeps`: least expressed genes of a cell; standard deviations that its total may lie from the mean.
    pad_token
        `[PAD]` of the published models.
    token_of
        The model's token of each vocabulary token, -1 for none, or of gene ids (then with `vocabulary`). None: the
        tokens of columns are the model's.
    pad, multiple
        "max": to `max_length`; "longest": to the longest row of the batch, rounded up to a multiple; "none": rows one
        after the other, with `batch.cu_seqlens`.
    genes
        Gene ids of a panel, in order; all genes when None.
    faithful
        Cut in order, refuse two columns of one token (which are added up without), and NaN where an empty cell is
        normalised (0 without).

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    Source: czi-ai/transcriptformer `6dd6205`, `src/transcriptformer/data/dataloader.py`, `tokenizer/` and
    `conf/inference_config.yaml`; what differs is listed in docs/recipes/transcriptformer.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 40, 1], [0, 0, 0]], dtype=np.uint32))
    >>> recipe = TranscriptFormer(max_length=4, pad="longest")
    >>> batch = recipe.encode(counts, np.array([7, 8, 9]), np.zeros(2, np.uint64))
    >>> batch.genes.tolist(), batch.values.tolist(), batch.lengths.tolist()
    ([[8, 9], [5, 5]], [[30.0, 1.0], [0.0, 0.0]], [2, 0])
    """

    max_length: int = 2047
    order: Order = "axis"
    truncate: Truncate | None = None
    zeros: Literal["drop", "keep"] = "drop"
    normalize_to: float | None = None
    clip: float | None = 30.0
    assays: Mapping[str, int] | None = field(default=None, hash=False)
    assay_column: str = "assay"
    min_genes: int = 0
    outliers: float = 0.0
    pad_token: int = 5
    token_of: GivenTokens | None = field(default=None, repr=False, compare=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False, compare=False)
    pad: Pad = "max"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    faithful: bool = False
    table: ModelTokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("order", self.order, Order)
        check_choice("zeros", self.zeros, ("drop", "keep"))
        check_whole("max_length", self.max_length, least=1)
        check_whole("pad_token", self.pad_token, least=0, most=MOST_TOKEN)
        check_whole("min_genes", self.min_genes, least=0)
        check_flag("faithful", self.faithful)
        check_pad(self, self.pad, self.multiple)
        _check_above_zero("normalize_to", self.normalize_to)
        _check_above_zero("clip", self.clip)
        if check_number("outliers", self.outliers) < 0:
            raise ConfigError(
                f"outliers must be a number of standard deviations, 0 for no limit; found {self.outliers!r}"
            )
        usual = "order" if self.faithful else "sample"
        truncate = usual if self.truncate is None else self.truncate
        object.__setattr__(self, "truncate", check_choice("truncate", truncate, Truncate))
        if self.faithful and self.truncate != "order":
            raise ConfigError("truncate must be 'order' with faithful=True: the original cuts rows in their order")
        check_column("assay_column", self.assay_column)
        if self.assays is not None:
            if not isinstance(self.assays, Mapping) or "unknown" not in self.assays:
                raise ConfigError(
                    "assays must be a mapping of label to token with the label 'unknown', the token of assays that "
                    f"have none; found {self.assays!r}"
                )
            named = {
                str(label): check_whole(f"assays[{label!r}]", token, least=0, most=MOST_TOKEN)
                for label, token in self.assays.items()
            }
            object.__setattr__(self, "assays", named)
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        object.__setattr__(self, "table", ModelTokens(self.token_of, self.vocabulary))
        keep_plain(self)

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of obs that `encode` needs."""
        return () if self.assays is None else (self.assay_column,)

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return self.table.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return what the recipe puts into `batch.genes` itself, by name."""
        return {self.pad_token: "<pad>"}

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
        obs: Obs | None = None,
        numbers: ProfileNumbers | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`. `totals` are not looked at.

        Parameters
        ----------
        obs
            With `assays`: the label of each cell, under the name of its column.
        numbers
            Random numbers to use instead of the keyed ones, for tests.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other.
        VocabularyError
            When a gene has the token of padding; with `faithful` for two columns of one token.
        """
        del totals
        cells = self._cells(counts, genes, keys)
        keep = self.zeros == "keep"
        known = int((cells.token_of >= 0).sum())
        room = np.minimum(np.full(len(cells), known) if keep else cells.sizes, self.max_length).astype(np.int64)
        # The original normalises with torch, whose float32 sums depend on their order above 2^24: so does torch here.
        by_torch = self.faithful and self.normalize_to is not None
        rules = ProfileRules(
            values=PROFILE_VALUES["raw" if self.normalize_to is None or by_torch else "scaled"],
            scale=self.normalize_to or 1.0,
            of_kept=True,
            clip=math.inf if self.clip is None or by_torch else self.clip,
            order=PROFILE_ORDERS[ORDERS[self.order]],
            choose=PROFILE_CHOICES["uniform" if self.truncate == "sample" else "first"],
            zeros=keep,
            pad_token=self.pad_token,
        )
        starts = row_starts(room, self.max_length, pad=self.pad, multiple=self.multiple)
        batch = make_profiles(cells, rules, room, starts, Wanted(self.pad), numbers=numbers)
        if by_torch:
            _normalise(batch.values, starts, self.normalize_to or 1.0, self.clip)
        if self.assays is not None:
            batch = TokenBatch(
                **{**vars(batch), "extra": {"assay": torch.from_numpy(self._assay_tokens(obs, len(cells)))}}
            )
        return batch

    def _cells(self, counts: sparse.csr_array, genes: Any, keys: Any) -> TokenCells:
        cells = read_profiles(counts, self.table.of(genes), keys, faithful=self.faithful)
        refuse_token(cells, self.pad_token, "The model's genes begin at 7, and pad_token stands for padding")
        return cells

    def _assay_tokens(self, obs: Obs | None, n: int) -> npt.NDArray[np.int64]:
        assert self.assays is not None
        labels = labels_of(obs, self.assay_column, n)
        return ids_of(labels, self.assays, self.assays["unknown"], "assays").reshape(n, 1)

    def keeps(self, counts: sparse.csr_array, genes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which cells pass `min_genes` and `outliers`, bool[n]; `encode` itself drops none.

        Mean and standard deviation (ddof 0) are those of the cells given, so hand it a whole data set.
        """
        cells = self._cells(counts, genes, np.zeros(counts.shape[0], dtype=np.uint64))
        kept: npt.NDArray[np.bool_] = cells.sizes >= self.min_genes
        if self.outliers > 0:
            total = row_sums(cells.indptr, cells.counts).astype(np.float64)
            reach = total.std() * self.outliers
            kept &= (total > total.mean() - reach) & (total < total.mean() + reach)
        return kept

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the table of tokens by its hash."""
        left_out = ("token_of", "vocabulary", "table", "genes", "assays")
        return {
            "recipe": "transcriptformer",
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out},
            "assays": None if self.assays is None else dict(self.assays),
            "token_of": self.table.hash,
            "genes": None if self.genes is None else list(self.genes),
        }


def _normalise(values: torch.Tensor, starts: npt.NDArray[np.int64], scale: float, clip: float | None) -> None:
    """Scale and clip rows in place, as the original does; a row without counts becomes NaN."""
    rows = values if values.ndim == 2 else torch.tensor_split(values, torch.from_numpy(starts[1:-1]))
    for row in rows:
        row.copy_(row / row.sum() * scale).clamp_(min=0, max=clip)


def _check_above_zero(name: str, value: float | None) -> None:
    if value is not None:
        check_number(name, value, above=0)
