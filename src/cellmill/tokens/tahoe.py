"""Tahoe-x1's and MosaicFM's input (floor 5, tokens): genes with the bin of their count, drugs, generative parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary
from cellmill.kernel import SequenceRules
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
    check_column,
    columns_of,
    context_tokens,
    ids_of,
    labels_of,
    refuse_genes,
)
from cellmill.tokens.recipe import as_panel, tell_no_memory
from cellmill.tokens.sequences import Choose, Fit, Heads, Masking, Per, Shape, as_ratios, draw_ratios, fit_rows

__all__ = ["Tahoe"]

Style = Literal["mask", "both", "gen", "pcpt"]
Values = Literal["bins", "log1p", "raw"]
Faithful = Literal["tahoe", "mosaicfm"]


@dataclass(frozen=True, kw_only=True)
class Tahoe:
    """Genes with binned counts behind `<cls>` and a drug token; raw counts beside them, in `extra["raw"]`.

    Parameters
    ----------
    max_length, mask, masking, ratio_per, choose, keep, context, pad, multiple, genes, vocabulary
        As in `ScGPT`.
    values
        "bins" 1 to n_bins - 1 between quantile edges of the cell's own counts, computed as torch does in float32, bit
        for bit; "log1p" of counts per `target_sum`; "raw" counts.
    right
        A count that is several edges gets the highest bin, not the lowest.
    style
        "mask" or "pcpt": masked in place. "both": what is masked comes in `extra["gen_genes"]`, `extra["gen_target"]`,
        `extra["gen_raw"]`. "gen": no mask.
    fill
        What short rows are filled with: "pad", or "unexpressed", genes that the source measured and the cell lacks, up
        to `max_length`; with `faithful` up to the batch's longest row, so that a cell's tokens depend on its batch.
    drug
        Column of obs with the drug of a cell; adds the token `<drug>` and `extra["drug_ids"]` (int32[n]).
    drug_ids
        Id of each drug; 0 for unknown and missing ones.
    faithful
        None for the corrected rules; "tahoe" or "mosaicfm" for what these do, with their short masks.

    Raises
    ------
    ConfigError
        Naming the parameter.
    VocabularyError
        When the vocabulary has no `<pad>`, `<cls>` or, with `drug`, `<drug>`.

    Notes
    -----
    Source: tahoebio/tahoe-x1 `7dfe74f` (`tahoe_x1/data/collator.py`), tahoebio/mosaicfm `d4a5729`
    (`mosaicfm/data/collator.py`). What differs is listed in docs/recipes/tahoe.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 5, 1, 2], [0, 0, 0, 7]], dtype=np.uint32))
    >>> batch = Tahoe(max_length=8, mask=None).encode(counts, np.arange(10, 14), np.array([1, 2], np.uint64))
    >>> batch.values.tolist(), batch.extra["raw"].tolist()
    ([[-2.0, 50.0, 1.0, 26.0], [-2.0, 1.0, -2.0, -2.0]], [[-2.0, 5.0, 1.0, 2.0], [-2.0, 7.0, -2.0, -2.0]])
    """

    max_length: int = 2048
    mask: float | Sequence[float] | None = 0.5
    masking: Masking = "count"
    ratio_per: Per = "cell"
    values: Values = "bins"
    n_bins: int = 51
    right: bool = False
    target_sum: float = 1e4
    style: Style = "mask"
    choose: Choose = "uniform"
    fill: Literal["pad", "unexpressed"] = "pad"
    drug: str | None = None
    drug_ids: Mapping[str, int] = field(default_factory=dict)
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
            ("values", Values),
            ("style", Style),
            ("choose", Choose),
            ("fill", ("pad", "unexpressed")),
            ("pad", Pad),
        ):
            check_choice(name, getattr(self, name), words)
        if self.faithful is not None:
            check_choice("faithful", self.faithful, Faithful)
        object.__setattr__(self, "context", as_context(self.context))
        check_number("target_sum", self.target_sum, above=0)
        check_column("drug", self.drug)
        if not isinstance(self.drug_ids, Mapping):
            raise ConfigError(f"drug_ids must be a mapping of drug to id, found {self.drug_ids!r}")
        ids = {drug: check_whole(f"drug_ids[{drug!r}]", one, least=0) for drug, one in self.drug_ids.items()}  # int32
        check_whole("n_bins", self.n_bins, least=3, most=MOST_BINS)
        check_pad(self, self.pad, self.multiple)
        check_flag("right", self.right)
        check_whole("max_length", self.max_length, least=self._n_head() + 1)
        if self.keep is not None:
            check_whole("keep", self.keep, least=self._n_head())
            check_whole("max_length", self.max_length, least=self.keep + 1)
        if self.mask is not None:
            many = as_ratios("mask", self.mask)
            object.__setattr__(self, "mask", many[0] if len(many) == 1 else many)
        if self.faithful == "mosaicfm":
            object.__setattr__(self, "ratio_per", "batch")
        check_vocabulary(self.vocabulary)
        if self.faithful is None and self.style == "both" and self.masking == "bernoulli":
            raise ConfigError(
                "masking='bernoulli' is for style='pcpt': with 'both' a share of the genes is hidden, counted"
            )
        for name in ("pad_value", "mask_value"):
            check_number(name, getattr(self, name))
        object.__setattr__(self, "drug_ids", ids)
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        check_apart(self.context, self._specials(), self.vocabulary)
        if self.mask is not None and self.style in ("mask", "pcpt"):
            zeros = self.fill == "unexpressed" or self.faithful is not None
            check_mask_value(self.mask_value, self.pad_value, self.values, self.n_bins, zeros=zeros)
        keep_plain(self)

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of obs that `encode` needs."""
        return columns_of(self.context) + (() if self.drug is None else (self.drug,))

    def _n_head(self) -> int:
        return 1 + int(self.drug is not None) + len(self.context)

    def _specials(self) -> dict[str, int]:
        names = ("<pad>", "<cls>") if self.drug is None else ("<pad>", "<cls>", "<drug>")
        return {name: special_of(self.vocabulary, name) for name in names}

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
        """Return the tokens of n cells; arguments and errors as in `ScGPT.encode`."""
        cells = as_cells(counts, genes, keys, zeros=self.faithful is not None)
        n, n_head, specials = len(cells), self._n_head(), self._specials()
        refuse_genes(cells.token_of, self.context, specials)
        keep = n_head if self.keep is None else self.keep
        parts = self.style == "both" and self.mask is not None
        rules = SequenceRules(
            values=VALUES["bins32" if self.values == "bins" else self.values],
            n_bins=self.n_bins,
            ties=TIES["highest" if self.right else "lowest"],
            target_sum=self.target_sum,
            choose=CHOICES[self.choose],
            shuffled=self.faithful is not None,
            split=parts,
            split_first=parts and self.faithful == "mosaicfm",
            keep=keep - n_head,
            skip=keep if self.faithful == "mosaicfm" and self.style == "pcpt" else 0,
            zero_value=1.0 if self.faithful and self.values == "bins" and not self.right else 0.0,
            mask_value=self.mask_value,
            pad_value=self.pad_value,
            pad_token=specials["<pad>"],
        )
        fit = Fit(
            style="pcpt" if self.style == "mask" else self.style,
            masking="bernoulli" if self.faithful == "mosaicfm" else self.masking,
            ratio=self._ratios(cells.keys),
            fill=self.fill == "unexpressed",
            fill_to_longest=self.faithful is not None,
            measured=measured,
            longest_less=int(self.drug is not None and self.faithful is not None),
            raw=True,
        )
        shape = Shape(self.max_length, self.pad, self.multiple)
        heads = self._heads(context_tokens(self.context, obs, counts, totals))
        short = _short_masks(cells.sizes, fit, shape, n_head, keep) if self.faithful == "tahoe" else {}
        batch = fit_rows(cells, rules, shape, heads, fit, **short)
        if self.drug is None:
            return batch
        ids = ids_of(labels_of(obs, self.drug, n), self.drug_ids, 0, f"drug {self.drug!r}")
        return replace(batch, extra={**batch.extra, "drug_ids": torch.from_numpy(ids.astype(np.int32))})

    def _ratios(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64] | None:
        if self.mask is None or self.style == "gen":
            return None
        return draw_ratios(as_ratios("mask", self.mask), keys, per=self.ratio_per)

    def _heads(self, more: npt.NDArray[np.int64]) -> Heads:
        own = [token for name, token in self._specials().items() if name != "<pad>"]
        tokens = np.concatenate([np.tile(np.array(own, dtype=np.int64), (len(more), 1)), more], axis=1)
        return Heads(
            tokens=np.ascontiguousarray(tokens), values=np.full(tokens.shape, self.pad_value, dtype=np.float32)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the vocabulary by its hash."""
        said = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("context", "vocabulary")
        }
        many = said["mask"]
        return {
            "recipe": "tahoe",
            **said,
            "mask": list(many) if isinstance(many, tuple) else many,
            "genes": None if self.genes is None else list(self.genes),
            "context": [one.to_dict() for one in self.context],
            "vocabulary": None if self.vocabulary is None else self.vocabulary.hash,
        }


def _short_masks(
    sizes: npt.NDArray[np.int64], fit: Fit, shape: Shape, n_head: int, keep: int
) -> Mapping[str, npt.NDArray[np.int64]]:
    """Return how many genes of each row Tahoe-x1 masks, and up to which one: its special tokens are subtracted twice.

    They carry the value of padding, by which real tokens are counted.
    """
    if fit.ratio is None:
        return MappingProxyType({})
    limit = min(int(sizes.max(initial=0)) + n_head - fit.longest_less, shape.max_length)
    genes = np.minimum(sizes, limit - n_head)
    if fit.fill:
        genes = np.full(len(sizes), limit - n_head)
    valid = np.maximum(genes - keep, 0)  # genes, less the special tokens once more, less the genes that are kept
    return {"n_mask": (valid * fit.ratio).astype(np.int64), "maskable": valid}
