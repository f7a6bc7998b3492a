"""Arguments of recipes of sequences that cannot be meant, and labels that mean nothing: refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import ConfigError, InputError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.tokens import (
    CellFM,
    Context,
    Depth,
    Geneformer,
    Nicheformer,
    ScFoundation,
    ScGPT,
    Tahoe,
    TranscriptFormer,
)

COUNTS = sparse.csr_array(np.array([[1, 0, 2], [0, 3, 1]], dtype=np.uint32))
GENES, KEYS = np.arange(5, 8), np.arange(2).astype(np.uint64)
OWN = Vocabulary(["g1", "g2"], tokens=[6, 7], specials={"<pad>": 0, "<cls>": 1})
SOME = (Context("assay", {"x": 7}),)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Tahoe(values="log1p", target_sum=float("nan")), "target_sum must be a finite number above 0"),
        (lambda: Tahoe(target_sum=0), "target_sum"),
        (lambda: Tahoe(target_sum="x"), "target_sum"),
        (lambda: Tahoe(drug_ids={"a": 2**40 + 7}), r"drug_ids\['a'\] must be at most 2\^31-1"),
        (lambda: Tahoe(drug_ids={"a": -1}), r"drug_ids\['a'\]"),
        (lambda: ScGPT(pad_value=float("inf")), "pad_value must be a finite number"),
        (lambda: ScGPT(mask_value="x"), "mask_value"),
        (lambda: ScGPT(cls_value=float("nan")), "cls_value"),
        (lambda: ScGPT(style="both", masking="bernoulli"), "masking='bernoulli' is for style='pcpt'"),
        (lambda: Tahoe(style="both", masking="bernoulli"), "masking='bernoulli' is for style='pcpt'"),
        (lambda: CellFM(cap="x"), "cap must be a finite number above 0"),
        (lambda: ScFoundation(pad_value="x"), "pad_value must be a finite number"),
        (lambda: ScFoundation(input="bulk", target_sum="x"), "target_sum must be a finite number above 0"),
        (lambda: TranscriptFormer(clip="x"), "clip must be a finite number above 0"),
        (lambda: TranscriptFormer(outliers="x"), "outliers must be a finite number"),
        (lambda: ScGPT(cls=2), "cls must be True or False"),
        (lambda: ScGPT(vocabulary="human"), "vocabulary must be a cellmill.Vocabulary"),
        (lambda: ScGPT(context=None), "context must be a tuple"),
        (lambda: ScGPT(context=("assay",)), "context must be a tuple"),
        (lambda: Tahoe(context=Context("assay", {"x": 1})), "context must be a tuple"),
        (lambda: Nicheformer(means=[1.0], context="assay"), "context must be a tuple"),
        (lambda: Context("assay", {"x": 1.5}), "a token of context 'assay' must be a whole number"),
        (lambda: Context("assay", {"x": "y"}), "a token of context 'assay'"),
        (lambda: Context("assay", {"x": 1}, missing=-7), "missing of context 'assay'"),
        (lambda: Depth((float("nan"),), first=1), "an edge of a depth token"),
        (lambda: Depth((1, 2), first=-9), "first of a depth token"),
        (lambda: Depth((1, 2), first=1.5), "first of a depth token"),
        (lambda: Depth((1, 2), first=2**63 - 2), "first of a depth token"),
        (lambda: Depth(5, first=1), "edges of a depth token must be a list"),
        (lambda: Context("assay", {"x": 2**63}), r"a token of context 'assay' must be at most 2\^63-1"),
        (lambda: Context("assay", 5), "context 'assay' has no tokens"),
        (lambda: Context(("a",), {"x": 1}), "column of a context"),
        (lambda: Tahoe(drug=["a"]), "drug must be the name of a column"),
        (lambda: Tahoe(drug_ids=["a"]), "drug_ids must be a mapping"),
        (lambda: TranscriptFormer(assays=["unknown"]), "assays must be a mapping"),
        (lambda: TranscriptFormer(assays={"unknown": "x"}), r"assays\['unknown'\]"),
        (lambda: TranscriptFormer(assay_column=["a"]), "assay_column"),
        (lambda: ScGPT(pad_value=1e300), "pad_value must be a finite number"),
        (lambda: ScGPT(pad_value=2**2000), "pad_value must be a finite number"),
        (lambda: ScGPT(mask_value=-2), "mask_value and pad_value must differ, found -2"),
        (lambda: ScGPT(mask_value=-2 + 1e-9), "mask_value and pad_value must differ"),
        (lambda: ScGPT(mask_value=1), r"mask_value 1 is a value that a gene can have \(bins are 0 to 50\)"),
        (lambda: ScGPT(mask_value=50), "mask_value 50 is a value"),
        (lambda: ScGPT(mask_value=0, include_zeros=True), "mask_value 0 is a value"),
        (lambda: ScGPT(mask_value=0, fill="unexpressed"), "mask_value 0 is a value"),
        (lambda: ScGPT(mask_value=7, n_bins=None), "mask_value 7 is a value"),
        (lambda: Tahoe(mask_value=-2), "mask_value and pad_value must differ"),
        (lambda: Tahoe(mask_value=3), "mask_value 3 is a value"),
        (lambda: Tahoe(mask_value=0.5, values="log1p"), "mask_value 0.5 is a value"),
        (lambda: Tahoe(mask_value=3, values="raw", style="pcpt"), "mask_value 3 is a value"),
        (lambda: ScGPT(context=(Context("assay", {"x": 0}),)), "context: the label 'x' .* token 0, .* of <pad>"),
        (lambda: ScGPT(context=(Context("assay", {"x": 9}, missing=1),)), "context: missing .* token 1, .* of <cls>"),
        (lambda: Tahoe(context=(Depth((5, 9), first=0),)), "context: a depth above 0 .* of <pad>"),
        (lambda: ScGPT(context=SOME, vocabulary=OWN), "context: the label 'x' .* token 7, .* of gene 'g2'"),
        (lambda: Tahoe(context=SOME, vocabulary=OWN), "context: the label 'x' .* token 7, .* of gene 'g2'"),
        (lambda: Nicheformer(means=[1.0], context=(Context("assay", {"x": 0}),)), "context: .* that of pad_token"),
        (lambda: Nicheformer(means=[1.0], context=SOME, vocabulary=OWN, offset=1), "context: .* of gene 'g1'"),
        (lambda: Nicheformer(means=[1.0], pad_token=37, vocabulary=OWN), "pad_token has the token 37, .* 'g2'"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_by_name(make, told):
    with pytest.raises(ConfigError, match=told):
        make()


@pytest.mark.parametrize("codes", [[-2, 0], [0, 2], [0.0, 1.0]])
def test_codes_that_name_no_label_are_refused(codes):
    recipe = ScGPT(max_length=10, mask=None, context=(Context("assay", {"x": 70, "y": 71}, missing=72),))
    obs = {"assay": (np.array([-1, 1]), ("x", "y"))}
    assert recipe.encode(COUNTS, GENES, KEYS, obs=obs).genes[:, 1].tolist() == [72, 71]
    with pytest.raises(InputError, match="context 'assay': codes must be whole numbers from -1 to 1"):
        recipe.encode(COUNTS, GENES, KEYS, obs={"assay": (np.array(codes), ("x", "y"))})


@pytest.mark.parametrize(
    "measured",
    [
        (np.ones((1, 2)), np.zeros(2, int)),
        (np.ones((1, 3)), np.zeros(2, int)),
        (np.ones(3, bool), np.zeros(2, int)),
        (np.ones((1, 3), bool), np.zeros(1, int)),
        (np.ones((1, 3), bool), np.zeros(2)),
        (np.ones((1, 3), bool), np.array([0, 1])),
    ],
)
def test_what_was_measured_must_fit_the_cells(measured):
    recipe = ScGPT(max_length=10, mask=None, fill="unexpressed")
    good = np.array([[1, 1, 0]], dtype=bool), np.zeros(2, int)
    assert recipe.encode(COUNTS, GENES, KEYS, measured=good).lengths.tolist() == [4, 4]
    with pytest.raises(InputError, match="measured"):
        recipe.encode(COUNTS, GENES, KEYS, measured=measured)


@pytest.mark.parametrize(
    "recipe",
    [
        ScGPT(mask_value=0),
        ScGPT(mask_value=1, mask=None),
        ScGPT(mask_value=-2, style="both"),
        ScGPT(mask_value=51),
        ScGPT(mask_value=0.5),
        Tahoe(mask_value=-2, style="gen"),
    ],
)
def test_a_mask_value_that_no_gene_can_have_or_that_nothing_shows_is_taken(recipe):
    recipe.encode(COUNTS, GENES, KEYS)


@pytest.mark.parametrize(
    ("recipe", "token", "told"),
    [
        (ScGPT(), 0, "which as 0 is that of <pad>"),
        (ScGPT(), 1, "which as 1 is that of <cls>"),
        (ScGPT(context=SOME), 7, "which as 7 is that of the label 'x' of context 'assay'"),
        (ScGPT(vocabulary=OWN), 1, "which as 1 is that of <cls>"),
        (Tahoe(context=(Depth((5,), first=20),)), 21, "which as 21 is that of a depth above 1 of the edges"),
        (Geneformer(medians=np.ones(30)), 2, "which as 2 is that of <cls>"),
        (Geneformer(medians=np.ones(30)), 3, "which as 3 is that of <eos>"),
        (Geneformer(medians=np.ones(30), version="V1"), 0, "which as 0 is that of <pad>"),
        (
            Nicheformer(means=np.ones(30), context=(Context("assay", {"x": 49}),)),
            19,
            "which as 49 is that of the label 'x'",
        ),
        (Nicheformer(means=np.ones(30), offset=0), 0, "which as 0 is that of pad_token"),
    ],
)
def test_a_gene_with_a_token_of_the_recipe_is_refused(recipe, token, told):
    obs = {"obs": {"assay": ["x", "x"]}} if getattr(recipe, "obs_columns", ()) else {}
    recipe.encode(COUNTS, GENES + 20, KEYS, **obs)
    with pytest.raises(VocabularyError, match=f"genes has the token {token} in column 1, {told}"):
        recipe.encode(COUNTS, np.array([25, token, 26]), KEYS, **obs)


def test_the_depth_of_a_cell_is_of_totals_that_are_looked_at():
    recipe = ScGPT(context=(Depth((4,), first=20),), mask=None)
    assert recipe.encode(COUNTS, GENES, KEYS, totals=[3, 9]).genes[:, 1].tolist() == [20, 21]
    for totals in ([3], [-1, 9], [np.nan, 9], ["a", "b"]):
        with pytest.raises(InputError, match="totals must be"):
            recipe.encode(COUNTS, GENES, KEYS, totals=totals)


@pytest.mark.parametrize("totals", [[3], [-1, 9], [np.nan, 9], [np.inf, 9], ["a", "b"], [[3, 4]], [0, 9], None])
def test_totals_of_log_values_are_looked_at(totals):
    recipe = ScFoundation(input="log1p", n_genes=9)
    assert recipe.encode(COUNTS, GENES, KEYS, totals=[100, 1000]).values[:, 3].tolist() == [2.0, 3.0]
    with pytest.raises(InputError, match="totals must be"):
        recipe.encode(COUNTS, GENES, KEYS, totals=totals)


@pytest.mark.parametrize(
    "obs", [5, {}, {"assay": 5}, {"assay": ["x"]}, {"assay": (np.zeros(2, int),)}, {"assay": (5, 6)}]
)
def test_labels_that_are_none_are_refused(obs):
    for recipe in (ScGPT(context=(Context("assay", {"x": 70}),)), TranscriptFormer(assays={"unknown": 0, "x": 1})):
        with pytest.raises(InputError, match="assay"):
            recipe.encode(COUNTS, GENES + 2, KEYS, obs=obs)


def test_recipes_with_contexts_are_values():
    recipe = ScGPT(context=(Context("assay", {"x": 70, "y": 71}),))
    other = ScGPT(context=(Context("assay", {"y": 71, "x": 70}),))
    assert recipe == other
    assert hash(recipe) == hash(other)
