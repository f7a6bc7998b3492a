"""A file whose cells are named as genes are, and whose genes are not, is transposed and refused, whatever it is."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cellmill as cm
from cellmill.errors import FormatError
from cellmill.genes import GeneTable, Vocabulary

IDS = list(Vocabulary.load("human").ids[:30])
SYMBOLS = [GeneTable.load("mouse").symbols[i] for i in range(100, 130)]
BARCODES = [f"AAACCTGAGAAACC{a}{b}{c}-1" for a in "ACGT" for b in "ACGT" for c in "AC"]
NOBODY = [f"peak {i}" for i in range(30)]
COUNTS = np.random.default_rng(0).poisson(1, (30, 30)) + 1


def written(path, cells, genes, kind="h5ad"):
    data = ad.AnnData(COUNTS, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))
    (data.write_h5ad if kind == "h5ad" else data.write_zarr)(path)
    return path


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("names", [IDS, SYMBOLS], ids=["ids", "symbols"])
@pytest.mark.parametrize("others", [BARCODES[:30], NOBODY], ids=["barcodes", "any names"])
def test_a_transposed_file_is_refused_under_its_own_ids(tmp_path, names, others, kind):
    path = written(tmp_path / f"t.{kind}", names, others, kind)
    with pytest.raises(FormatError, match=r"t\.\w+: X is transposed.* 100% of the names of its cells") as caught:
        cm.build(tmp_path / "s.mill", [path], vocabulary="union")
    assert repr(names[0]) in str(caught.value) and repr(others[0]) in str(caught.value)
    assert "exchanged" in str(caught.value)
    assert ("T.write_h5ad" in str(caught.value)) == (kind == "h5ad")
    upright = written(tmp_path / f"u.{kind}", others, names, kind)
    store = cm.build(tmp_path / "s.mill", [upright, path], vocabulary="union", skip_bad=True)
    assert store.n_cells == 30 and set(store.vocabulary.ids) == set(names)  # none of a file that was left out


@pytest.mark.parametrize(
    ("cells", "genes"),
    [
        (IDS, IDS[::-1]),
        (SYMBOLS, IDS),
        (NOBODY, NOBODY),
        (BARCODES[:30], NOBODY),
        ([*SYMBOLS[:5], *NOBODY[5:]], NOBODY),
    ],
    ids=["both genes", "cells named after genes", "nothing known", "barcodes as cells", "few known"],
)
def test_files_that_may_be_upright_are_taken(tmp_path, cells, genes):
    store = cm.build(tmp_path / "s.mill", [written(tmp_path / "u.h5ad", cells, genes)], vocabulary="union")
    assert set(store.gene_ids) == set(genes)
