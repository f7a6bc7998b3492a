"""What a refusal says of a value is true: what it is, what is wrong with it, and what would help."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellmill.errors import InputError, NotRawCountsError
from cellmill.ingest import build


def written(path, x, *, genes=None):
    var = pd.DataFrame(index=genes or [f"ENSG{i:011d}" for i in range(x.shape[1])])
    ad.AnnData(x, obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(x))]), var=var).write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (-1, "int64", "the value -1, which is negative"),
        (-1, "float32", "the value -1, which is negative"),
        (2**32, "float64", "the value 4294967296, which is above 2^32-1"),
        (2**32, "int64", "the value 4294967296, which is above 2^32-1"),
        (2**63 + 5, "uint64", "the value 9223372036854775813, which is above 2^32-1"),
        (1e300, "float64", "the value 1e+300, which is above 2^32-1"),
        (np.inf, "float32", "the value inf, which is not finite"),
        (np.nan, "float64", "the value nan, which is not finite"),
    ],
    ids=str,
)
def test_rounding_is_no_advice_for_what_rounding_does_not_mend(tmp_path, value, dtype, said):
    x = np.ones((6, 4), dtype)
    x[2, 1] = value
    with pytest.raises(NotRawCountsError, match="row 2") as caught:
        build(tmp_path / "s.mill", [written(tmp_path / "a.h5ad", x)], vocabulary="union")
    assert said in str(caught.value)
    assert "allow-rounding" not in str(caught.value) and "whole number:" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (1e-30, "float32", "the value 1e-30, which is not whole"),
        (0.283109, "float32", "the value 0.283109, which is not whole"),
        (2.9999999, "float64", "the value 2.9999999, which is not whole"),
        (1234567.5, "float64", "the value 1234567.5, which is not whole"),
        (1.00000000001, "float64", "the value 1.00000000001, which is not whole"),
    ],
)
def test_a_value_that_is_not_whole_is_not_shown_as_whole(tmp_path, value, dtype, said):
    x = np.ones((6, 4), dtype)
    x[2, 1] = value
    with pytest.raises(NotRawCountsError) as caught:
        build(tmp_path / "s.mill", [written(tmp_path / "a.h5ad", x)], vocabulary="union")
    assert said in str(caught.value)
    near = abs(value - round(value)) < 1e-3
    assert ("--allow-rounding 0.001" in str(caught.value)) == near


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_sum_of_duplicated_genes_that_is_too_large_is_named_in_full(tmp_path, skip_bad):
    genes = ["ENSG00000141510.1", *(f"ENSG{i:011d}" for i in range(3)), "ENSG00000141510.2"]
    x = np.ones((6, 5), np.int64)
    x[3, [0, 4]] = 4_000_000_000
    path = written(tmp_path / "twice.h5ad", x, genes=genes)
    with pytest.raises(InputError) as caught:
        build(tmp_path / "s.mill", [path], vocabulary="human", min_match=0.3, skip_bad=skip_bad)
    assert not isinstance(caught.value, NotRawCountsError) or skip_bad
    for said in (
        f"{path}: the matrix X cannot be stored. Cell 'cell3' (row 3), genes",
        "genes 'ENSG00000141510.1', 'ENSG00000141510.2' (columns 0, 4)",
        "add up to 8000000000, which is above 2^32-1",
        "keep one of them",
    ):
        assert said in str(caught.value)
