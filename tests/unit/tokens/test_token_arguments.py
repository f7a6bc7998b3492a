"""Arguments of recipes of sequences that cannot be meant, and labels that mean nothing: refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.tokens import CellFM, Context, Depth, Nicheformer, ScFoundation, ScGPT, Tahoe, TranscriptFormer

COUNTS = sparse.csr_array(np.array([[1, 0, 2], [0, 3, 1]], dtype=np.uint32))
GENES, KEYS = np.arange(5, 8), np.arange(2).astype(np.uint64)


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
