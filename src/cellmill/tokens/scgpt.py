"""scGPT's input (floor 5, tokens): a cell as a sequence of genes, each with the bin of its count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary
from cellmill.kernel import SequenceRules, TokenCells
from cellmill.kernel.sequences import CHOICES, TIES, VALUES
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    MOST_BINS,
    Pad,
    as_cells,
    check_choice,
    check_flag,
    check_mask_value,
    check_number,
    check_pad,
    check_vocabulary,
    check_whole,
    keep_plain,
    special_of,
)
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
from cellmill.tokens.recipe import as_panel, tell_no_memory
from cellmill.tokens.sequences import (
    Choose,
    Fit,
    Heads,
    Masking,
    Per,
    Shape,
    as_ratios,
    draw_ratios,
    fit_rows,
)

__all__ = ["ScGPT"]

Style = Literal["pcpt", "gen", "both"]
Ties = Literal["keyed", "lowest", "highest"]
Faithful = Literal["collator", "pretraining", "finetuning"]


@dataclass(frozen=True, kw_only=True)
class ScGPT:
    """Genes with binned counts behind `<cls>`: `batch.genes`, `batch.values`, `batch.target`, `batch.mask`.

    Parameters
    ----------
    max_length
        Most tokens of a row, special ones counted. Longer cells are sampled anew in every epoch.
    mask
        Share of a row's genes that is masked; several to draw one from; None for no mask.
    masking
        "count": ``int(n * mask)`` of n genes; "bernoulli": each gene by itself.
    ratio_per
        Where `mask` is several: one for each "cell", or one for the "batch" (which then depends on who is in it).
    n_bins
        51 for bins 1 to 50 between the 50 quantile edges of the cell's own counts, all of them, before any sampling.
        None for raw counts.
    ties
        The bin of a count that is several edges: one of those between them by a keyed number, as the original draws
        it; or always the "lowest" or "highest", for embeddings that must repeat.
    style
        "pcpt": masked in place. "both": what is masked is left out and comes in `extra["gen_genes"]` and
        `extra["gen_target"]`, for a decoder. "gen": no mask.
    choose
        Which genes stay in a row that is too short: a "uniform" sample, one by "expression", the "largest" counts, the
        "first" ones of the axis.
    include_zeros
        Every gene of the axis is a token, also at count 0; for panels.
    fill
        What short rows are filled with: "pad", or "unexpressed", genes that the source measured and the cell lacks, up
        to `max_length`.
    cls, cls_value
        Whether `<cls>` comes first, and its value; `pad_value` when None, as in pre-training (fine-tuning used 0).
    keep
        Tokens at the beginning of a row that are neither binned, sampled nor masked; None for the special ones.
    context
        Tokens behind `<cls>` that say where a cell comes from: `Context("assay", {...})`, `Depth(edges, first=...)`.
    pad, multiple
        "longest": to the longest row of the batch, rounded up to a multiple; "max": to `max_length`; "none": rows one
        after the other, with `batch.cu_seqlens`.
    pad_value, mask_value
        Values of padding and of what is masked: two numbers, the latter none that a gene can have.
    genes
        Gene ids of a panel, in order; all genes when None.
    vocabulary
        Whose tokens to use; those of the store when None. Genes that it lacks are left out.
    faithful
        None for the corrected rules. "collator" (embedding and fine-tuning), "pretraining" (the branch that trained the
        published models) or "finetuning" (`tokenize_and_pad_batch` with `random_mask_value`) as the original does it.

    Raises
    ------
    ConfigError
        Naming the parameter.
    VocabularyError
        When the vocabulary has no `<pad>` or `<cls>`.

    Notes
    -----
    Source: bowang-lab/scGPT, main `cebd6fa` (`scgpt/preprocess.py`, `data_collator.py`, `tokenizer/gene_tokenizer.py`)
    and dev-temp `4068d67` (`scgpt/data_collator.py`). What differs from it is listed in docs/recipes/scgpt.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 5, 1, 2], [0, 0, 0, 7]], dtype=np.uint32))
    >>> recipe = ScGPT(max_length=8, mask=None, ties="lowest")
    >>> batch = recipe.encode(counts, np.arange(10, 14), np.array([1, 2], np.uint64))
    >>> batch.genes.tolist(), batch.lengths.tolist()
    ([[1, 11, 12, 13], [1, 13, 0, 0]], [4, 2])
    >>> batch.values.tolist()
    [[-2.0, 50.0, 1.0, 25.0], [-2.0, 1.0, -2.0, -2.0]]
    """

    max_length: int = 1200
    mask: float | Sequence[float] | None = 0.4
    masking: Masking = "count"
    ratio_per: Per = "cell"
    n_bins: int | None = 51
    ties: Ties = "keyed"
    style: Style = "pcpt"
    choose: Choose = "uniform"
    include_zeros: bool = False
    fill: Literal["pad", "unexpressed"] = "pad"
    cls: bool = True
    cls_value: float | None = None
    keep: int | None = None
    context: tuple[Context | Depth, ...] = ()
    pad_value: float = -2.0
    mask_value: float = -1.0
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    vocabulary: Vocabulary | None = field(default=None, repr=False)
    faithful: Faithful | None = None

    fused: ClassVar[bool] = True  # its kernel decodes cells itself

    def __post_init__(self) -> None:
        for name, words in (
            ("masking", Masking),
            ("ratio_per", Per),
            ("ties", Ties),
            ("style", Style),
            ("choose", Choose),
            ("fill", ("pad", "unexpressed")),
        ):
            check_choice(name, getattr(self, name), words)
        if self.faithful is not None:
            check_choice("faithful", self.faithful, Faithful)
        object.__setattr__(self, "context", as_context(self.context))
        check_flag("cls", self.cls)
        check_flag("include_zeros", self.include_zeros)
        if self.cls_value is not None:
            check_number("cls_value", self.cls_value)
        n_head = int(self.cls) + len(self.context)
        check_whole("max_length", self.max_length, least=n_head + 1)
        check_pad(self, self.pad, self.multiple)
        if self.n_bins is not None:
            check_whole("n_bins", self.n_bins, least=3, most=MOST_BINS)
        if self.keep is not None:
            check_whole("keep", self.keep, least=0)
            check_whole("max_length", self.max_length, least=self.keep + 1)
        if self.mask is not None:
            many = as_ratios("mask", self.mask)
            object.__setattr__(self, "mask", many[0] if len(many) == 1 else many)
        if self.faithful == "pretraining" and self.style == "both" and self.ratio_per != "batch":
            object.__setattr__(self, "ratio_per", "batch")  # one length of the parts for all
        check_vocabulary(self.vocabulary)
        if self.faithful is None and self.style == "both" and self.masking == "bernoulli":
            raise ConfigError(
                "masking='bernoulli' is for style='pcpt': with 'both' a share of the genes is hidden, counted"
            )
        for name in ("pad_value", "mask_value"):
            check_number(name, getattr(self, name))
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        check_apart(self.context, self._specials(), self.vocabulary)
        if self.mask is not None and self.style == "pcpt":
            zeros = self.include_zeros or self.fill == "unexpressed" or self.faithful is not None
            check_mask_value(
                self.mask_value, self.pad_value, "raw" if self.n_bins is None else "bins", self.n_bins, zeros=zeros
            )
        keep_plain(self)

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of obs that `encode` needs."""
        return columns_of(self.context)

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
        obs: Obs | None = None,
        measured: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`.

        Parameters
        ----------
        obs
            For `context`: of each of its columns a label for each cell.
        measured : uint8[n_sources, n_columns] and int64[n]
            For `fill="unexpressed"`: which genes each source measured, and the source of each cell; all when None.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other.
        VocabularyError
            For a gene that has the token of `<pad>`, `<cls>` or a context.
        """
        cells = as_cells(counts, genes, keys, zeros=self.faithful is not None)
        specials = self._specials()
        refuse_genes(cells.token_of, self.context, specials)
        if self.include_zeros:
            cells = _with_zeros(cells)
        n_head = int(self.cls) + len(self.context)
        keep = n_head if self.keep is None else self.keep
        rules = SequenceRules(
            values=VALUES["raw" if self.n_bins is None else "bins64"],
            n_bins=self.n_bins or 51,
            ties=TIES[self.ties],
            choose=CHOICES[self.choose],
            shuffled=self.faithful is not None,
            split=self.style == "both" and self.mask is not None,
            split_first=self.style == "both" and self.mask is not None and self.faithful == "pretraining",
            keep=max(keep - n_head, 0),
            mask_heads=self.faithful == "finetuning",
            skip=keep if self.faithful == "pretraining" and self.style == "pcpt" else 0,
            spared=self.pad_value if self.faithful in ("collator", "finetuning") else float("nan"),
            mask_value=self.mask_value,
            pad_value=self.pad_value,
            pad_token=specials["<pad>"],
        )
        fit = Fit(
            style=self.style,
            masking=self._masking(),
            ratio=self._ratios(cells.keys),
            fill=self.fill == "unexpressed",
            measured=measured,
        )
        shape = Shape(self.max_length, self.pad, self.multiple)
        return fit_rows(cells, rules, shape, self._heads(context_tokens(self.context, obs, counts, totals)), fit)

    def _masking(self) -> Masking:
        """The originals' collators mask each gene by itself; `random_mask_value` counts."""
        if self.faithful is None:
            return self.masking
        return "count" if self.faithful == "finetuning" else "bernoulli"

    def _ratios(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64] | None:
        if self.mask is None or self.style == "gen":
            return None
        return draw_ratios(as_ratios("mask", self.mask), keys, per=self.ratio_per)

    def _specials(self) -> dict[str, int]:
        names = ("<pad>", "<cls>") if self.cls else ("<pad>",)
        return {name: special_of(self.vocabulary, name) for name in names}

    def _heads(self, more: npt.NDArray[np.int64]) -> Heads:
        cls = np.full((len(more), int(self.cls)), self._specials().get("<cls>", 0), dtype=np.int64)
        own = 0.0 if self.faithful == "finetuning" else self.pad_value
        value = own if self.cls_value is None else self.cls_value
        return Heads(
            tokens=np.ascontiguousarray(np.concatenate([cls, more], axis=1)),
            values=np.concatenate(
                [np.full(cls.shape, value, dtype=np.float32), np.full(more.shape, self.pad_value, dtype=np.float32)],
                axis=1,
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the vocabulary by its hash."""
        said = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("context", "vocabulary")
        }
        many = said["mask"]
        return {
            "recipe": "scgpt",
            **said,
            "mask": list(many) if isinstance(many, tuple) else many,
            "genes": None if self.genes is None else list(self.genes),
            "context": [one.to_dict() for one in self.context],
            "vocabulary": None if self.vocabulary is None else self.vocabulary.hash,
        }


def _with_zeros(cells: TokenCells) -> TokenCells:
    """Return cells with an entry for every column that has a token, also where the count is 0.

    Raises
    ------
    ConfigError
        When that is too large to be meant.
    """
    known = np.flatnonzero(cells.token_of >= 0)
    n, width = len(cells), len(known)
    if n * width > 2**31:
        raise ConfigError(
            f"include_zeros makes {n} x {width} tokens of this batch; name the genes of a panel: genes=[...]"
        )
    dense = sparse.csr_array((cells.counts, cells.columns, cells.indptr), shape=(n, len(cells.token_of))).toarray()[
        :, known
    ]
    return TokenCells(
        np.arange(n + 1, dtype=np.int64) * width,
        np.tile(known, n),
        dense.ravel(),
        token_of=cells.token_of,
        keys=cells.keys,
    )
