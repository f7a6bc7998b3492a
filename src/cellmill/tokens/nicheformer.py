"""Nicheformer's input (floor 5, tokens): genes by how much more than usual for a technology they are expressed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import RANK_VALUES, RankRules, TokenCells
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import MOST_TOKEN, Pad, check_choice, check_pad, check_vocabulary, check_whole, keep_plain
from cellmill.tokens.context import (
    Context,
    Depth,
    Obs,
    as_context,
    check_apart,
    columns_of,
    context_tokens,
    refuse_genes,
)
from cellmill.tokens.per_gene import PerGene
from cellmill.tokens.ranks import cells_with, rank_rows, summed
from cellmill.tokens.recipe import as_panel, tell_no_memory
from cellmill.tokens.sequences import Shape

__all__ = ["Nicheformer"]

Faithful = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class Nicheformer:
    """Tokens of the detected genes by count / mean of the gene in a technology, the largest first.

    `batch.genes` holds the tokens, `batch.values` what they were ranked by (0 at context tokens and padding).

    Parameters
    ----------
    means
        Mean of each gene over the cells of one technology, as published with the model: a mapping of gene id to number
        (the vocabulary says the tokens), of token to number, or an array over tokens. A mean of 0 counts as 1; genes
        without a mean are left out.
    max_length
        Most tokens of a row, context tokens counted: 1,500 in training, 4,096 in the published code.
    offset
        Added to the token of each gene; below it are the tokens of padding and context. With a vocabulary whose tokens
        are places in the model's gene list, from 0 on, this gives the published tokens.
    pad_token
        What fills short rows.
    context
        Tokens in front of the genes that say where a cell comes from: `Context("assay", {...})`.
    pad, multiple, genes
        As in `Geneformer`.
    vocabulary
        Whose tokens to use; those of the store when None.
    faithful
        None for the corrected rule: rank by count / mean in float64, equal ones by token. "float32" or "float64" for
        the original's arithmetic on a matrix of that dtype, whose rounding orders some equal ratios; True is "float32".

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    Source: theislab/nicheformer `485cadb` (`src/nicheformer/data/dataset.py`). The cell's total divides all its genes
    alike, so the corrected rank needs none. What differs is listed in docs/recipes/nicheformer.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[6, 0, 4], [0, 0, 0]], dtype=np.uint32))
    >>> recipe = Nicheformer(means=[3.0, 1.0, 1.0])
    >>> recipe.encode(counts, np.arange(3), np.zeros(2, np.uint64)).genes.tolist()
    [[32, 30], [0, 0]]
    """

    means: Any = field(repr=False)
    max_length: int = 1500
    offset: int = 30
    pad_token: int = 0
    context: tuple[Context | Depth, ...] = ()
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    vocabulary: Vocabulary | None = field(default=None, repr=False)
    faithful: Faithful | bool | None = None

    def __post_init__(self) -> None:
        check_pad(self, self.pad, self.multiple)
        check_vocabulary(self.vocabulary)
        object.__setattr__(self, "context", as_context(self.context))
        check_whole("offset", self.offset, least=0)
        check_whole("pad_token", self.pad_token, least=0, most=MOST_TOKEN)
        check_whole("max_length", self.max_length, least=len(self.context) + 1)
        check_apart(self.context, {"pad_token": self.pad_token}, self.vocabulary, offset=self.offset)
        faithful = ("float32" if self.faithful else None) if isinstance(self.faithful, bool) else self.faithful
        if faithful is not None:
            check_choice("faithful", faithful, Faithful)
        for name, value in (
            ("faithful", faithful),
            ("means", PerGene.take("means", self.means)),
            ("genes", as_panel(self.genes, self.vocabulary)),
        ):
            object.__setattr__(self, name, value)
        keep_plain(self)

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of obs that `encode` needs."""
        return columns_of(self.context)

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return np.where(tokens >= 0, tokens + self.offset, -1)

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
        totals: npt.NDArray[Any] | None = None,
        obs: Obs | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`. Cells without any gene give context tokens and padding.

        Parameters
        ----------
        totals
            Counts of the whole cell; `Depth` tokens alone use them. Faithful values are of the sum over the genes that
            have a mean, as in the original, whose matrix holds no others.
        obs
            For `context`: of each of its columns a label for each cell.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other.
        """
        cells, means = cells_with(counts, genes, keys, self.means, self.vocabulary)
        refuse_genes(cells.token_of, self.context, {"pad_token": self.pad_token}, offset=self.offset)
        if self.faithful is None:
            cells = summed(cells)
        rules = RankRules(
            values=RANK_VALUES["ratio" if self.faithful is None else "scaled"],
            single=self.faithful == "float32",
            token_offset=self.offset,
            pad_token=self.pad_token,
        )
        return rank_rows(
            cells,
            rules,
            Shape(self.max_length, self.pad, self.multiple),
            divisors=np.where(means == 0, 1.0, means),
            head=context_tokens(self.context, obs, counts, totals),
            totals=None if self.faithful is None else _sums(cells),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; means and vocabulary by their hashes."""
        said = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            "recipe": "nicheformer",
            **said,
            "means": self.means.digest,
            "context": [one.to_dict() for one in self.context],
            "genes": None if self.genes is None else list(self.genes),
            "vocabulary": None if self.vocabulary is None else self.vocabulary.hash,
        }


def _sums(cells: TokenCells) -> npt.NDArray[np.float64]:
    """Return the sum of the counts of each cell, 1 where it has none, as the original divides by then."""
    upto: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(cells.counts, dtype=np.int64)])
    sums = upto[cells.indptr[1:]] - upto[cells.indptr[:-1]]
    return np.asarray(np.maximum(sums, 1), dtype=np.float64)
