"""STATE SE: a cell's genes by expression, each with its share, genes to predict, and a mask (floor 5, tokens)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.genes import Vocabulary
from cellmill.kernel import StateOut, StatePlan, TokenCells, mix64, tokenise_state
from cellmill.kernel.reference.tokens import to_uniform
from cellmill.kernel.token_cells import RATIO, cell_numbers
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    MOST_TOKEN,
    Pad,
    as_cells,
    check_choice,
    check_flag,
    check_fraction,
    check_pad,
    check_whole,
    row_starts,
)
from cellmill.tokens.gene_tables import GeneTable
from cellmill.tokens.recipe import tell_no_memory
from cellmill.tokens.sequences import Per
from cellmill.tokens.uce import trimmed

__all__ = ["StateSE"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
Table = Mapping[str, int] | Sequence[int] | npt.NDArray[np.integer[Any]]
LOCAL_CLS = 3  # The original uses its special token as the index of a gene of the cell.
RAW_ABOVE, RAW_SUM = 35, 5_000_000


@dataclass(frozen=True)
class StateSE:
    """The 2,047 largest genes of a cell behind a CLS slot, each with its share of the cell, and 1,536 genes to predict.

    Parameters
    ----------
    embedding
        Id of each gene's embedding: an array over vocabulary tokens, or a mapping of gene id to id. Genes without one
        (-1, or not named) are left out.
    vocabulary
        Needed for a mapping: the token of each gene id.
    n_embeddings
        Number of embeddings, that shared genes are drawn from; by default one more than the largest id.
    max_length
        Slots of a row, CLS counted.
    n_expressed, n_unexpressed, n_shared
        Genes to predict: with counts, without, and of any id, the same ones for all cells (0 for none).
    shared_per
        Shared genes are drawn once per "batch", from the keys of its cells together, as in the original; or by "cell",
        so that nothing depends on the batch.
    mask
        Share of the slots that are masked, those of genes to predict first.
    binary
        Task values 0 and 1, as for the cross-entropy loss.
    downsample
        Of the counts of each cell so large a part is drawn, with replacement, for the row; a pair is a range to draw
        the part from, by the key of the cell. Task values stay those of all counts.
    faithful
        The original's defects too, see the page of the recipe, and an error where it fails.
    pad, multiple
        Rows are `max_length` long, but where the data has fewer genes than slots and a cell expresses all of them.
    cls_token, pad_token
        What stands in slot 0, where the model puts an embedding of its own, and behind short rows.

    Notes
    -----
    A batch holds `genes` int64 (embedding ids), `values` float32 (percent of the cell's sum of log1p counts; 0 in slot
    0), `mask`, `lengths`; in `extra` `task_genes` int64[n, k], `task_values` float32[n, k], in the order expressed,
    unexpressed, shared, and `task_total` float32[n], their sum. Genes of equal counts, and those without, come in a
    random order by the key of the cell.

    Source: Adduri et al. 2025; github.com/ArcInstitute/state at efff9da, `src/state/emb/data/loader.py`
    (`VCIDatasetSentenceCollator.sample_cell_sentences`), `configs/state-defaults.yaml`.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 3, 1, 0]], dtype=np.uint32))
    >>> recipe = StateSE([70, 71, 72, 73], max_length=4, n_expressed=2, n_unexpressed=1, n_shared=0, mask=0.0)
    >>> batch = recipe.encode(counts, np.arange(4), np.zeros(1, np.uint64))
    >>> batch.genes[0, :3].tolist(), [round(value, 1) for value in batch.values[0].tolist()]
    ([3, 71, 72], [0.0, 66.7, 33.3, 0.0])
    """

    embedding: GeneTable
    n_embeddings: int
    max_length: int
    n_expressed: int
    n_unexpressed: int
    n_shared: int
    shared_per: Per
    mask: float
    binary: bool
    downsample: tuple[float, float] | None
    faithful: bool
    pad: Pad
    multiple: int
    cls_token: int
    pad_token: int
    vocabulary: Vocabulary | None = field(repr=False, compare=False)
    vocabulary_hash: str | None

    fused: ClassVar[bool] = True  # its kernel decodes cells itself

    def __init__(
        self,
        embedding: Table,
        *,
        vocabulary: Vocabulary | None = None,
        n_embeddings: int | None = None,
        max_length: int = 2048,
        n_expressed: int = 512,
        n_unexpressed: int = 512,
        n_shared: int = 512,
        shared_per: Per = "batch",
        mask: float = 0.2,
        binary: bool = False,
        downsample: float | tuple[float, float] | None = None,
        faithful: bool = False,
        pad: Pad = "longest",
        multiple: int = 1,
        cls_token: int = 3,
        pad_token: int = 0,
    ) -> None:
        table = GeneTable("embedding", embedding, vocabulary)
        for name, value in (
            ("embedding", table),
            ("n_embeddings", _n_embeddings(table, n_embeddings)),
            ("max_length", check_whole("max_length", max_length, least=2)),
            ("n_expressed", check_whole("n_expressed", n_expressed, least=0)),
            ("n_unexpressed", check_whole("n_unexpressed", n_unexpressed, least=0)),
            ("n_shared", check_whole("n_shared", n_shared, least=0)),
            ("shared_per", check_choice("shared_per", shared_per, Per)),
            ("mask", check_fraction("mask", mask)),
            ("binary", check_flag("binary", binary)),
            ("downsample", _range(downsample)),
            ("faithful", check_flag("faithful", faithful)),
            ("cls_token", check_whole("cls_token", cls_token, least=0, most=MOST_TOKEN)),
            ("pad_token", check_whole("pad_token", pad_token, least=0, most=MOST_TOKEN)),
            ("vocabulary", vocabulary),
            ("vocabulary_hash", None if vocabulary is None else vocabulary.hash),
        ):
            object.__setattr__(self, name, value)
        check_pad(self, pad, multiple)

    @property
    def genes(self) -> None:
        """None: it ranks all genes that have an embedding."""
        return

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return self.embedding.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return what the recipe puts into `batch.genes` itself, by name."""
        return {self.cls_token: "<cls>", self.pad_token: "<pad>"}

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return rows, tasks and masks; see `Recipe.encode`. Totals are not needed.

        Raises
        ------
        NotRawCountsError
            For counts that are no whole numbers from 0 to 2^32 - 1.
        InputError
            For arguments that do not fit each other, for an axis without gene that has an embedding; with `faithful`
            also for cells that the original fails on.
        """
        del totals
        cells = as_cells(counts, genes, keys)
        logged = _read_as_raw(counts) if self.faithful else np.ones(len(cells), dtype=np.uint8)
        return self.batch(cells, self.plan(cells, logged))

    def plan(
        self, cells: TokenCells, logged: npt.NDArray[np.uint8], *, order: U64 | None = None, mask: U64 | None = None
    ) -> StatePlan:
        """Return what the kernel is told of these cells, with other random numbers where they are given."""
        ids = self.embedding.of(cells.token_of)
        kept = (cells.token_of >= 0) & ((ids >= 0) | self.faithful)
        if not kept.any():
            raise InputError(
                "no gene of the axis has an embedding: `genes` and `embedding` speak of other vocabularies"
            )
        shared = self._shared(cells.keys)
        column_of = np.full(self.n_embeddings, -1, dtype=np.int32)
        there = kept & (ids >= 0)
        column_of[ids[there]] = np.flatnonzero(there)
        return StatePlan(
            ids=ids,
            kept=kept.astype(np.uint8),
            logged=logged,
            fraction=self._fraction(cells.keys),
            shared=shared,
            shared_columns=column_of[shared],
            n_ids=self.n_embeddings,
            width=self.max_length,
            n_expressed=self.n_expressed,
            n_unexpressed=self.n_unexpressed,
            n_shared=self.n_shared,
            mask_ratio=self.mask,
            first=self.cls_token,
            padding=self.pad_token,
            first_column=_local_gene(kept) if self.faithful else -1,
            faithful=self.faithful,
            binary=self.binary,
            order=order,
            mask=mask,
        )

    def _shared(self, keys: U64) -> I64:
        """Return n_shared ids of each cell, uniform over all, int64[n, n_shared]."""
        wanted = keys
        if self.shared_per == "batch":
            wanted = np.full(len(keys), np.bitwise_xor.reduce(keys), dtype=np.uint64)
        stream = cell_numbers(wanted, RATIO, counter=1)[:, None]
        numbers = mix64((stream ^ mix64(np.arange(self.n_shared, dtype=np.uint64))).ravel())
        return (to_uniform(numbers) * self.n_embeddings).astype(np.int64).reshape(len(keys), self.n_shared)

    def _fraction(self, keys: U64) -> F64:
        if self.downsample is None:
            return np.ones(len(keys))
        low, high = self.downsample
        return low + (high - low) * to_uniform(cell_numbers(keys, RATIO))

    def batch(self, cells: TokenCells, plan: StatePlan) -> TokenBatch:
        """Return what the kernel makes of a plan."""
        n, n_tasks = len(cells), self.n_expressed + self.n_unexpressed + self.n_shared
        out = StateOut(
            genes=np.empty(n * plan.width, dtype=np.int64),
            values=np.empty(n * plan.width, dtype=np.float32),
            mask=np.empty(n * plan.width, dtype=np.uint8),
            lengths=np.empty(n, dtype=np.int64),
            task_genes=np.empty(n * n_tasks, dtype=np.int64),
            task_values=np.empty(n * n_tasks, dtype=np.float32),
            totals=np.empty(n, dtype=np.float32),
            faults=np.empty(n, dtype=np.uint8),
        )
        tokenise_state(cells, plan, out)
        if self.faithful:
            _refuse(out)
        flat = self.pad == "none"
        starts = row_starts(out.lengths, self.max_length, pad=self.pad, multiple=self.multiple)
        genes, values, mask = (
            trimmed(part, out.lengths, starts, width=plan.width, flat=flat, padding=padding)
            for part, padding in ((out.genes, self.pad_token), (out.values, 0), (out.mask, 0))
        )
        return TokenBatch(
            values=values,
            genes=genes,
            mask=mask.view(torch.bool),
            lengths=torch.from_numpy(out.lengths),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if flat else None,
            extra={
                "task_genes": torch.from_numpy(out.task_genes).view(n, n_tasks),
                "task_values": torch.from_numpy(out.task_values).view(n, n_tasks),
                "task_total": torch.from_numpy(out.totals),
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the table by its hash."""
        named = (
            "n_embeddings",
            "max_length",
            "n_expressed",
            "n_unexpressed",
            "n_shared",
            "shared_per",
            "mask",
            "binary",
        )
        return {
            "recipe": "state_se",
            "embedding": self.embedding.hash,
            "vocabulary": self.vocabulary_hash,
            **{name: getattr(self, name) for name in named},
            "downsample": None if self.downsample is None else list(self.downsample),
            **{name: getattr(self, name) for name in ("faithful", "pad", "multiple", "cls_token", "pad_token")},
        }


def _n_embeddings(table: GeneTable, given: int | None) -> int:
    least = int(table.numbers.max(initial=-1)) + 1
    if least < 1:
        raise ConfigError("embedding gives no gene an id of 0 or more")
    if int(table.numbers.min()) < -1:
        raise ConfigError(f"embedding must hold ids from 0 on, and -1 for none, found {int(table.numbers.min())}")
    if given is not None:
        return check_whole("n_embeddings", given, least=least)
    return check_whole("embedding: the largest id and one", least, least=1)


def _range(downsample: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if downsample is None:
        return None
    pair = tuple(downsample) if isinstance(downsample, (tuple, list)) else (downsample, downsample)
    if len(pair) != 2 or check_fraction("downsample", pair[0]) > check_fraction("downsample", pair[1]):
        raise ConfigError(f"downsample must be a part from 0 to 1, or an ascending pair, found {downsample!r}")
    return float(pair[0]), float(pair[1])


def _read_as_raw(counts: sparse.csr_array) -> npt.NDArray[np.uint8]:
    """Return which cells the original takes for raw counts: it guesses by their largest value and their sum.

    One value above 35 is enough, and makes the sum large enough too.
    """
    values = np.minimum(counts.data.astype(np.float64), RAW_ABOVE + 1)
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    sums = np.bincount(cell, weights=np.expm1(values), minlength=counts.shape[0])
    return (np.floor(sums) > RAW_SUM).astype(np.uint8)


def _local_gene(kept: npt.NDArray[np.bool_]) -> int:
    columns = np.flatnonzero(kept)
    if len(columns) <= LOCAL_CLS:
        raise InputError(f"faithful puts gene {LOCAL_CLS} of the axis into slot 0, found {len(columns)} genes")
    return int(columns[LOCAL_CLS])


def _refuse(out: StateOut) -> None:
    bad = np.flatnonzero(out.faults)
    if len(bad):
        cell = int(bad[0])
        purpose = "fill the row" if out.faults[cell] == 1 else "be predicted as unexpressed"
        raise InputError(
            f"cell {cell} has no unexpressed gene left to {purpose}, on which the original fails; use faithful=False"
        )
