"""UCE: genes drawn by expression, put together by chromosome (floor 5, tokens)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.genes import Vocabulary
from cellmill.kernel import SentenceOut, SentencePlan, TokenCells, tokenise_sentences
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import MOST_TOKEN, Pad, as_cells, check_flag, check_pad, check_whole, row_starts
from cellmill.tokens.gene_tables import GeneTable
from cellmill.tokens.recipe import tell_no_memory

__all__ = ["UCE", "trimmed"]

I64 = npt.NDArray[np.int64]
Table = Mapping[str, int] | Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class UCE:
    """A sentence of 1,024 genes drawn by expression, with replacement, those of a chromosome together and in its order.

    Parameters
    ----------
    rows
        Row of each gene in the table of protein embeddings: an array over vocabulary tokens, or a mapping of gene id to
        row. Genes without one (-1, or not named) are left out.
    chromosomes, starts
        Code of the chromosome of each gene, and where it starts there; given like `rows`. A gene without chromosome is
        left out.
    vocabulary
        Needed for mappings: the token of each id.
    sample_size
        Draws of each cell.
    max_length
        Longest row, all special tokens counted.
    faithful
        Refuse what the original fails on, an empty cell and a sentence that does not fit. Otherwise an empty cell is
        `cls_token` alone, and a sentence is made of as many of its draws as fit.
    pad, multiple
        "longest" (as the original trims), "max" or "none".
    cls_token, end_token, pad_token, chromosome_offset
        First of all, behind each chromosome, padding, and what is added to a chromosome's code for its token.

    Notes
    -----
    `genes` int64 are what the model embeds; `values` float32 the count of each token's gene, 0 for special ones;
    `extra["draws"]` int64[n]. Draws go by log1p of counts, by the key of the cell, over genes in the order of their
    tokens, so that neither batch nor order of the axis matters; equal starts go by token. The original is trained on
    cells with 25 such genes and genes in 10 cells at least: select them when a store is built.

    Source: Rosen et al. 2023; github.com/snap-stanford/UCE at 8ead6e0, `eval_data.py` (`sample_cell_sentences`,
    `MultiDatasetSentences`, `MultiDatasetSentenceCollator`).

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 3, 0], [0, 0, 0]], dtype=np.uint32))
    >>> recipe = UCE([70, 71, 72], [5, 6, 6], [10, 20, 30], sample_size=2)
    >>> recipe.encode(counts, np.arange(3), np.zeros(2, np.uint64)).genes.tolist()
    [[3, 143580, 71, 71, 2], [3, 0, 0, 0, 0]]
    """

    rows: GeneTable
    chromosomes: GeneTable
    starts: GeneTable
    sample_size: int
    max_length: int
    faithful: bool
    pad: Pad
    multiple: int
    cls_token: int
    end_token: int
    pad_token: int
    chromosome_offset: int
    vocabulary: Vocabulary | None = field(repr=False, compare=False)
    vocabulary_hash: str | None

    fused: ClassVar[bool] = True  # its kernel decodes cells itself

    def __init__(
        self,
        rows: Table,
        chromosomes: Table,
        starts: Table,
        *,
        vocabulary: Vocabulary | None = None,
        sample_size: int = 1024,
        max_length: int = 1536,
        faithful: bool = False,
        pad: Pad = "longest",
        multiple: int = 1,
        cls_token: int = 3,
        end_token: int = 2,
        pad_token: int = 0,
        chromosome_offset: int = 143_574,
    ) -> None:
        if check_whole("max_length", max_length, least=1) < 4:
            raise ConfigError(f"max_length must have room for 3 special tokens and a gene, 4, found {max_length}")
        for name, value in (
            ("rows", GeneTable("rows", rows, vocabulary)),
            ("chromosomes", GeneTable("chromosomes", chromosomes, vocabulary)),
            ("starts", GeneTable("starts", starts, vocabulary)),
            ("sample_size", check_whole("sample_size", sample_size, least=1)),
            ("max_length", int(max_length)),
            ("faithful", check_flag("faithful", faithful)),
            ("cls_token", check_whole("cls_token", cls_token, least=0, most=MOST_TOKEN)),
            ("end_token", check_whole("end_token", end_token, least=0, most=MOST_TOKEN)),
            ("pad_token", check_whole("pad_token", pad_token, least=0, most=MOST_TOKEN)),
            ("chromosome_offset", check_whole("chromosome_offset", chromosome_offset, least=0)),
            ("vocabulary", vocabulary),
            ("vocabulary_hash", None if vocabulary is None else vocabulary.hash),
        ):
            object.__setattr__(self, name, value)
        check_pad(self, pad, multiple)
        _check_lengths({"rows": rows, "chromosomes": chromosomes, "starts": starts})
        self._check_apart()

    @property
    def genes(self) -> None:
        """None: it draws from all genes that have an embedding."""
        return

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return self.rows.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return what the recipe puts into `batch.genes` itself, by name."""
        codes = np.unique(self.chromosomes.numbers[self.chromosomes.numbers >= 0])
        specials = {self.cls_token: "<cls>", self.end_token: "<end>", self.pad_token: "<pad>"}
        return {int(code) + self.chromosome_offset: f"chromosome {code}" for code in codes} | specials

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the sentences; see `Recipe.encode`. Totals are not needed.

        Raises
        ------
        NotRawCountsError
            For counts that are no whole numbers from 0 to 2^32 - 1.
        InputError
            For arguments that do not fit each other; with `faithful` also for cells that the original fails on.
        """
        del totals
        cells = as_cells(counts, genes, keys)
        plan = self.plan(cells)
        out = _made(cells, plan)
        if self.faithful:
            self._refuse(out)
        return self._batch(out, plan.width)

    def plan(
        self,
        cells: TokenCells,
        *,
        uniforms: npt.NDArray[np.float64] | None = None,
        order: npt.NDArray[np.uint64] | None = None,
    ) -> SentencePlan:
        """Return what the kernel is told of these cells, with other random numbers where they are given."""
        rows, chromosomes = self.rows.of(cells.token_of), self.chromosomes.of(cells.token_of)
        rows = np.where(chromosomes >= 0, rows, -1)
        longest = 1 + self.sample_size + 2 * len(np.unique(chromosomes[rows >= 0]))
        return SentencePlan(
            rows=rows,
            chromosomes=chromosomes,
            places=self.starts.of(cells.token_of),
            n_draws=self.sample_size,
            width=min(self.max_length, longest),
            first=self.cls_token,
            last=self.end_token,
            padding=self.pad_token,
            offset=self.chromosome_offset,
            uniforms=uniforms,
            order=order,
        )

    def _check_apart(self) -> None:
        """Refuse a gene whose row is what the recipe puts in itself: the model embeds both by one table."""
        own = {name: getattr(self, name) for name in ("cls_token", "end_token", "pad_token")}
        codes = np.unique(self.chromosomes.numbers[self.chromosomes.numbers >= 0])
        check_whole(
            "chromosomes: the largest code", codes.max(initial=0), least=0, most=MOST_TOKEN - self.chromosome_offset
        )
        tokens = np.concatenate([np.array([*own.values()], dtype=np.int64), codes + self.chromosome_offset])
        both = np.flatnonzero(np.isin(self.rows.numbers, tokens))
        if len(both):
            row = int(self.rows.numbers[both[0]])
            what = next((name for name, token in own.items() if token == row), "a chromosome (chromosome_offset)")
            raise ConfigError(f"rows gives the gene of token {both[0]} the row {row}, which is the token of {what}")

    def _refuse(self, out: SentenceOut) -> None:
        short = np.flatnonzero(out.drawn < self.sample_size)
        if not len(short):
            return
        cell = int(short[0])
        found = "no counts in genes with an embedding" if not out.drawn[cell] else "more chromosomes than fit"
        raise InputError(
            f"cell {cell} has {found} (max_length {self.max_length}), on which the original fails; "
            "leave such cells out, raise max_length, or use faithful=False"
        )

    def _batch(self, out: SentenceOut, width: int) -> TokenBatch:
        starts = row_starts(out.lengths, self.max_length, pad=self.pad, multiple=self.multiple)
        genes, values = (
            trimmed(part, out.lengths, starts, width=width, flat=self.pad == "none", padding=padding)
            for part, padding in ((out.genes, self.pad_token), (out.values, 0))
        )
        return TokenBatch(
            values=values,
            genes=genes,
            lengths=torch.from_numpy(out.lengths),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if self.pad == "none" else None,
            extra={"draws": torch.from_numpy(out.drawn)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; tables by their hashes."""
        return {
            "recipe": "uce",
            "rows": self.rows.hash,
            "chromosomes": self.chromosomes.hash,
            "starts": self.starts.hash,
            "vocabulary": self.vocabulary_hash,
            "sample_size": self.sample_size,
            "max_length": self.max_length,
            "faithful": self.faithful,
            "pad": self.pad,
            "multiple": self.multiple,
            "cls_token": self.cls_token,
            "end_token": self.end_token,
            "pad_token": self.pad_token,
            "chromosome_offset": self.chromosome_offset,
        }


def _check_lengths(tables: Mapping[str, Table]) -> None:
    """Refuse arrays over vocabulary tokens that are not over the same ones."""
    sizes = {name: len(table) for name, table in tables.items() if not isinstance(table, Mapping)}
    for (name, size), (other, its) in itertools.pairwise(sizes.items()):
        if size != its:
            raise ConfigError(
                f"{name} and {other} must be over the same vocabulary tokens, found {size:,} and {its:,} numbers"
            )


def _made(cells: TokenCells, plan: SentencePlan) -> SentenceOut:
    n = len(cells)
    out = SentenceOut(
        genes=np.empty(n * plan.width, dtype=np.int64),
        values=np.empty(n * plan.width, dtype=np.float32),
        lengths=np.empty(n, dtype=np.int64),
        drawn=np.empty(n, dtype=np.int64),
    )
    tokenise_sentences(cells, plan, out)
    return out


def trimmed(
    rows: npt.NDArray[Any], lengths: I64, starts: I64, *, width: int, flat: bool, padding: float
) -> torch.Tensor:
    """Return rows that were made `width` long as `starts` wants them: cut, padded further, or one after the other."""
    n = len(lengths)
    matrix = rows.reshape(n, width)
    if flat:
        return torch.from_numpy(matrix[np.arange(width) < lengths[:, None]])
    length = int(starts[-1]) // n if n else 0
    if length <= width:
        return torch.from_numpy(np.ascontiguousarray(matrix[:, :length]))
    wide = np.full((n, length), padding, dtype=rows.dtype)
    wide[:, :width] = matrix
    return torch.from_numpy(wide)
