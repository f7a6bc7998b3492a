"""Cell2Sentence's input (floor 5, tokens): genes by expression, the largest first, and the sentence of their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.kernel import RankRules, TokenCells
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import Pad, as_cells, check_flag, check_pad, check_whole, keep_plain
from cellmill.tokens.ranks import one_column_each, rank_rows, summed
from cellmill.tokens.recipe import as_panel, tell_no_memory
from cellmill.tokens.sequences import Shape
from cellmill.tokens.words import GivenNames, as_words

__all__ = ["Cell2Sentence"]

F64 = npt.NDArray[np.float64]
MOST_SEED = 2**32 - 1  # of NumPy's legacy generator
NO_GENE = -1  # padding: no token of a gene, so no word


@dataclass(frozen=True, kw_only=True)
class Cell2Sentence:
    """Tokens of the detected genes by their value, the largest first; `sentences` makes text of them.

    `batch.genes` holds the tokens, -1 for padding, `batch.values` what they were ranked by.

    Parameters
    ----------
    max_length
        Most words of a cell; all when None. Prompts of the published models take the first 100 to 1,000.
    delimiter
        What stands between words.
    pad, multiple
        As in `Geneformer`; "max" needs `max_length`.
    genes
        Gene ids of a panel, in order; all genes when None.
    faithful
        What the original does with equal values, in a batch as one call of it: a shuffle by NumPy's legacy generator,
        seeded once for all cells, so that the order depends on the cells before. Zeros that are stored become words, at
        the end or, of an unsigned dtype, at the beginning.
    seed
        Of that generator. Without `faithful` equal values are ordered by a number of cell key and gene token.

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    Source: vandijklab/cell2sentence `b2bea70` (`src/cell2sentence/utils.py`, `csdata.py`). What differs is listed in
    docs/recipes/cell2sentence.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[2, 0, 9], [0, 0, 0]], dtype=np.uint32))
    >>> recipe = Cell2Sentence()
    >>> batch = recipe.encode(counts, np.array([5, 6, 7]), np.zeros(2, np.uint64))
    >>> recipe.sentences(batch, {5: "Cd3e", 6: "Cd4", 7: "Actb"})
    ['ACTB CD3E', '']
    """

    max_length: int | None = None
    delimiter: str = " "
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    faithful: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        check_pad(self, self.pad, self.multiple)
        check_whole("seed", self.seed, least=0, most=MOST_SEED)
        check_flag("faithful", self.faithful)
        if self.max_length is not None:
            check_whole("max_length", self.max_length, least=1)
        elif self.pad == "max":
            raise ConfigError("pad='max' needs max_length: the words of every cell")
        if not isinstance(self.delimiter, str) or not self.delimiter:
            raise ConfigError(f"delimiter must be a text of one letter or more, found {self.delimiter!r}")
        object.__setattr__(self, "genes", as_panel(self.genes))
        keep_plain(self)

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[Any] | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`. Cells without any gene give no token.

        Parameters
        ----------
        counts
            Counts, or values of another kind such as normalised ones, 0 or more.

        Raises
        ------
        InputError, NotRawCountsError
            For values that are not finite, or negative (these the original ranks, and so does `faithful`), and for
            arguments that do not fit each other.
        """
        del totals
        made = _as_stored(counts, genes, keys, self.seed) if self.faithful else (*_as_valued(counts, genes, keys), None)
        cells, values, ties = made
        longest = len(cells.token_of) if self.max_length is None else self.max_length
        batch = rank_rows(
            cells,
            RankRules(keyed_ties=True, pad_token=NO_GENE),
            Shape(max(longest, 1), self.pad, self.multiple),
            values=values,
            ties=ties,
        )
        if self.faithful:  # zeros that were put in front
            torch.nan_to_num_(batch.values, posinf=0.0)
        return batch

    def sentences(self, batch: TokenBatch, names: GivenNames) -> list[str]:
        """Return the sentence of each cell of a batch: names in upper case, empty for a cell without genes.

        Parameters
        ----------
        names
            A vocabulary, whose symbols are taken, and the ids of genes that share one; a mapping of token to name; or
            the name of each token from 0 on.

        Raises
        ------
        InputError
            When two names are one word in upper case, when a token has no name, or for a batch of another recipe.
        """
        if batch.genes is None or batch.lengths is None:
            raise InputError("batch must be one that Cell2Sentence made: it has no tokens and lengths")
        words = as_words(names)
        flat = batch.genes.ravel().tolist()
        width = batch.genes.shape[-1]
        starts = range(0, len(flat) + 1, max(width, 1)) if batch.cu_seqlens is None else batch.cu_seqlens.tolist()
        try:
            return [
                self.delimiter.join([words[token] for token in flat[start : start + length]])
                for start, length in zip(starts, batch.lengths.tolist(), strict=False)
            ]
        except KeyError as error:
            raise InputError(f"names has none for token {error.args[0]}; give one for each gene of the batch") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        said = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"recipe": "cell2sentence", **said, "genes": None if self.genes is None else list(self.genes)}


def _as_valued(counts: sparse.csr_array, genes: Any, keys: Any) -> tuple[TokenCells, F64 | None]:
    """Return cells, and what their genes are ranked by where that is no counts; columns of one token summed."""
    if not sparse.issparse(counts) or counts.format != "csr" or _are_whole(counts.data):
        return summed(as_cells(counts, genes, keys)), None
    _refuse_values(counts, ~(np.isfinite(counts.data) & (counts.data >= 0)), "finite and 0 or more")
    as_cells(counts[:0], genes, keys[:0])  # whether genes fit, before columns are put together by them
    merged = one_column_each(counts.astype(np.float64), np.asarray(genes))
    cells, place = _with_places(merged, genes, keys, merged.data != 0)
    return cells, merged.data[place]


def _as_stored(
    counts: sparse.csr_array, genes: Any, keys: Any, seed: int
) -> tuple[TokenCells, F64, npt.NDArray[np.uint64]]:
    """Return cells with all that is stored, its values, and the order that the original's shuffle gives equal ones."""
    if not sparse.issparse(counts) or counts.format != "csr":
        as_cells(counts, genes, keys)  # refuses it
    _refuse_values(counts, ~np.isfinite(counts.data), "finite")
    cells, place = _with_places(counts, genes, keys, np.ones(counts.nnz, dtype=bool))
    values = counts.data.astype(np.float64)
    if counts.dtype.kind == "u":  # the original ranks -x, which is smallest for 0 where it wraps
        values[counts.data == 0] = np.inf
    generator = np.random.RandomState(seed)
    order = np.empty(counts.nnz, dtype=np.uint64)
    for start, end in zip(counts.indptr[:-1].tolist(), counts.indptr[1:].tolist(), strict=True):
        shuffled = np.arange(end - start)
        generator.shuffle(shuffled)
        order[start + shuffled] = np.arange(end - start)
    return cells, values[place], order[place]


def _with_places(
    counts: sparse.csr_array, genes: Any, keys: Any, kept: npt.NDArray[np.bool_]
) -> tuple[TokenCells, npt.NDArray[np.int64]]:
    """Return cells of the entries that are kept and whose genes have tokens, and where each stood in `counts`."""
    numbered = np.where(kept, np.arange(1, counts.nnz + 1), 0).astype(np.uint32)
    cells = as_cells(sparse.csr_array((numbered, counts.indices, counts.indptr), shape=counts.shape), genes, keys)
    return cells, cells.counts.astype(np.int64) - 1


def _are_whole(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind != "f" or bool((values == np.floor(values)).all())  # of no numbers: refused as counts


def _refuse_values(counts: sparse.csr_array, bad: npt.NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        cell = int(np.searchsorted(counts.indptr, at, side="right")) - 1
        raise InputError(
            f"counts must be {expected}; cell {cell}, column {int(counts.indices[at])} holds {counts.data[at]}"
        )
