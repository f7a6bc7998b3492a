"""Geneformer's input (floor 5, tokens): genes by how much more than usual they are expressed, the most so first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import VocabularyError
from cellmill.genes import Vocabulary
from cellmill.kernel import RANK_VALUES, RankRules
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    Pad,
    as_totals,
    check_choice,
    check_flag,
    check_pad,
    check_whole,
    keep_plain,
    special_of,
)
from cellmill.tokens.context import refuse_genes
from cellmill.tokens.per_gene import PerGene
from cellmill.tokens.ranks import KnownRanks, cells_with, rank_rows, refuse_no_total, summed
from cellmill.tokens.recipe import as_panel, tell_no_memory
from cellmill.tokens.sequences import Shape

__all__ = ["Geneformer"]

Version = Literal["V1", "V2"]
Faithful = Literal["sparse", "dense"]
Duplicates = Literal["sum", "keep"]

LENGTHS = {"V1": 2048, "V2": 4096}
# special tokens of the published dictionaries, for callers who hand tokens without a vocabulary
V2_SPECIALS = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}


@dataclass(frozen=True, kw_only=True)
class Geneformer:
    """Tokens of the detected genes by count / median of the gene over a corpus, the largest first.

    `batch.genes` holds the tokens, `batch.values` what they were ranked by (0 at special tokens and padding).

    Parameters
    ----------
    version
        "V2": `<cls>` in front and `<eos>` behind, 4,096 tokens. "V1": genes alone, 2,048 tokens.
    medians
        Median of the nonzero values of each gene over the training corpus, as published with the model: a mapping of
        gene id to number (the vocabulary says the tokens), of token to number, or an array over tokens. Genes without
        a median are left out.
    max_length
        Most tokens of a row, special ones counted; that of the version when None.
    duplicates
        Columns that have one token: "sum" their counts, or "keep" both, so that the token comes twice. None: "sum",
        but "keep" where `faithful`, as the original does unless its gene dictionary maps two ids onto one.
    keep_counts
        Whether the batch carries counts per 10,000 in the order of the genes: `extra["per_10k"]`, float64.
    pad, multiple
        "longest": to the longest row of the batch, rounded up to a multiple; "max": to `max_length`; "none": rows one
        after the other, with `batch.cu_seqlens`.
    genes
        Gene ids of a panel, in order; all genes when None.
    vocabulary
        Whose tokens to use; those of the store when None. Its `<pad>`, `<cls>` and `<eos>` (or `<eoc>`) are used.
        Without any vocabulary they are those of the published V2 dictionary: 0, 2, 3.
    faithful
        None for the corrected rule: rank by count / median in float64, equal ones by token. "sparse" or "dense" for the
        original's arithmetic on a matrix stored so, whose rounding orders some genes of equal count / median; True is
        "sparse". It depends on `totals`: where these are float32, so are the first two steps.

    Raises
    ------
    ConfigError
        Naming the parameter.
    VocabularyError
        When the vocabulary lacks a special token.

    Notes
    -----
    Source: V1 jkobject/geneformer `95b6340`, V2 ctheodoris/Geneformer as mirrored in explorerwjy/Geneformer `7ec90d6`
    (`geneformer/tokenizer.py`). The cell's total divides all its genes alike, so the corrected rank needs none. What
    differs is listed in docs/recipes/geneformer.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[6, 0, 4], [0, 0, 0]], dtype=np.uint32))
    >>> recipe = Geneformer(medians={4: 3.0, 5: 1.0, 6: 1.0})
    >>> batch = recipe.encode(counts, np.array([4, 5, 6]), np.zeros(2, np.uint64))
    >>> batch.genes.tolist(), batch.values[0].tolist(), batch.lengths.tolist()
    ([[2, 6, 4, 3], [2, 3, 0, 0]], [0.0, 4.0, 2.0, 0.0], [4, 2])
    """

    medians: Any = field(repr=False)
    version: Version = "V2"
    max_length: int | None = None
    duplicates: Duplicates | None = None
    keep_counts: bool = False
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    vocabulary: Vocabulary | None = field(default=None, repr=False)
    faithful: Faithful | bool | None = None
    _known: KnownRanks = field(default_factory=KnownRanks, init=False, repr=False, compare=False)

    fused: ClassVar[bool] = True  # its kernel decodes cells itself

    def __post_init__(self) -> None:
        check_choice("version", self.version, Version)
        check_pad(self, self.pad, self.multiple)
        check_flag("keep_counts", self.keep_counts)
        length = LENGTHS[self.version] if self.max_length is None else self.max_length
        check_whole("max_length", length, least=3 if self.version == "V2" else 1)
        faithful = ("sparse" if self.faithful else None) if isinstance(self.faithful, bool) else self.faithful
        if faithful is not None:
            check_choice("faithful", faithful, Faithful)
        if self.duplicates is not None:
            check_choice("duplicates", self.duplicates, Duplicates)
        for name, value in (
            ("max_length", length),
            ("faithful", faithful),
            ("duplicates", self.duplicates or ("sum" if faithful is None else "keep")),
            ("medians", PerGene.take("medians", self.medians, positive=True)),
            ("genes", as_panel(self.genes, self.vocabulary)),
        ):
            object.__setattr__(self, name, value)
        self._specials()
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
        """Return the tokens of n cells; see `Recipe.encode`. Cells without any gene give `<cls>` and `<eos>` alone.

        Parameters
        ----------
        totals
            Counts of the whole cell (the original's `n_counts`), integers or floats; only `faithful` and
            `keep_counts` use them.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other, and for a total of 0 that would be divided by.
        """
        cells, medians = cells_with(counts, genes, keys, self.medians, self.vocabulary)
        refuse_genes(cells.token_of, (), self._specials())
        if self.duplicates == "sum":
            cells = summed(cells)
        whole, single = None, False
        if self.faithful is not None or self.keep_counts:
            whole, single = as_totals(counts, totals)
            self._refuse_totals(whole, cells.sizes)
        specials = self._specials()
        v2 = self.version == "V2"
        values = {"sparse": "reciprocal", "dense": "divided"}.get(str(self.faithful), "ratio")
        keyed = self._known.of(cells, medians) if values == "ratio" else None
        return rank_rows(
            cells,
            RankRules(
                values=RANK_VALUES[values], single=single and self.faithful is not None, pad_token=specials["<pad>"]
            ),
            Shape(self.max_length or LENGTHS[self.version], self.pad, self.multiple),
            divisors=medians,
            head=np.full((len(cells), int(v2)), specials.get("<cls>", 0)),
            tail=(specials["<eos>"],) if v2 else (),
            totals=whole,
            keyed=keyed,
            per_10k=self.keep_counts,
        )

    def _refuse_totals(self, totals: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> None:
        if self.faithful == "dense":
            why = "the original divides 0 by it and takes every gene for detected. Leave such cells out, or faithful"
            refuse_no_total(totals, np.ones(len(totals), dtype=bool), why)
        refuse_no_total(totals, sizes > 0, "the cell has counts, so its total is at least their sum")

    def _specials(self) -> dict[str, int]:
        """Tokens of padding, beginning and end."""
        names = ("<pad>",) if self.version == "V1" else ("<pad>", "<cls>", "<eos>")
        if self.vocabulary is None:
            return {name: V2_SPECIALS[name] for name in names}
        instead = {"<eos>": "<eoc>"}
        if self.version == "V2" and "<cls>" not in self.vocabulary.specials:
            raise VocabularyError(
                "the vocabulary has no <cls>, which begins each row of V2: give one of V2, or version='V1'"
            )
        return {name: special_of(self.vocabulary, name, instead=instead.get(name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; medians and vocabulary by their hashes."""
        said = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
        return {
            "recipe": "geneformer",
            **said,
            "medians": self.medians.digest,
            "genes": None if self.genes is None else list(self.genes),
            "vocabulary": None if self.vocabulary is None else self.vocabulary.hash,
        }
