"""What a user should know of an input that is taken all the same is told, and nothing else."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellmill import events
from cellmill.ingest import build, plan_build
from cellmill.ingest.options import BuildOptions

N_CELLS, N_GENES = 40, 30


def counts():
    return np.random.default_rng(0).negative_binomial(1, 0.4, (N_CELLS, N_GENES)).astype(np.float32)


def with_raw(path, x, raw, *, make=sp.csr_matrix):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    genes = [f"ENSG{i:011d}" for i in range(N_GENES)]
    data = ad.AnnData(make(x), obs=obs, var=pd.DataFrame(index=genes[:: N_GENES // x.shape[1]]))
    data.raw = ad.AnnData(make(raw), obs=obs, var=pd.DataFrame(index=genes[: raw.shape[1]]))
    data.write_h5ad(path)
    return path


def cautions(path, **options):
    (source,) = plan_build([path], vocabulary="union", options=BuildOptions(**options)).sources
    return source.warnings


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_raw_with_more_genes_than_the_x_that_is_taken_is_told(tmp_path, make):
    path = with_raw(tmp_path / "subset.h5ad", counts()[:, ::3], counts(), make=make)
    said = []
    with events.listening(lambda event: said.append(event.message)):
        store = build(tmp_path / "s.mill", [path], vocabulary="union")
    assert store.n_genes == 10
    (told,) = [one for one in said if one.startswith("warning: subset.h5ad")]
    assert "X, which is taken, has 10 genes, and raw has 30" in told and "--counts raw" in told
    assert cautions(path, counts="raw") == ()


def test_raw_that_adds_nothing_is_not_told(tmp_path):
    raw = counts()
    assert cautions(with_raw(tmp_path / "same.h5ad", raw, raw)) == ()
    assert cautions(with_raw(tmp_path / "logged.h5ad", raw[:, ::3], np.log1p(raw))) == ()
    broken = with_raw(tmp_path / "broken.h5ad", raw[:, ::3], raw)
    with h5py.File(broken, "r+") as h5:
        h5["raw/X/indices"][5] = 4000
    assert cautions(broken) == ()


def test_a_file_without_cells_is_told(tmp_path, tiny_h5ad):
    empty = tiny_h5ad("empty", counts=np.zeros((0, 40))).path
    (said,) = cautions(empty)
    assert "there is no cell in it" in said
    assert cautions(tiny_h5ad("a").path) == ()
