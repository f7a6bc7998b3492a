"""`--counts auto` takes the matrix of which every value is proven, and never one of two that differ."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellmill.errors import ConfigError, NotRawCountsError
from cellmill.ingest import build
from cellmill.sources import Source

N_CELLS, N_GENES = 1300, 12  # more cells than a look at the file reads

LAYOUTS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


def counts(seed=0):
    made = np.random.default_rng(seed).poisson(0.8, (N_CELLS, N_GENES)).astype(np.float32)
    made[-1, 3] = 7
    return made


def written(path, x, *, raw=None, **layers):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    genes = [f"ENSG{i:011d}" for i in range(N_GENES)]
    data = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes[: x.shape[1]]), layers=layers)
    if raw is not None:
        data.raw = ad.AnnData(raw, obs=obs, var=pd.DataFrame(index=genes))
    data.write_h5ad(path)
    return path


def with_last(matrix, value):
    changed = matrix.copy()
    changed[-1, 3] = value
    return changed


def built(tmp_path, path, **options):
    return build(tmp_path / "s.mill", [path], vocabulary="union", counts="auto", **options)


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_auto_takes_the_matrix_that_is_raw_to_its_last_cell(tmp_path, make):
    raw = counts()
    path = written(tmp_path / "a.h5ad", make(with_last(raw, 0.5)), counts=make(raw), scaled=make(raw - 0.25))
    store = built(tmp_path, path)
    assert store.manifest.sources[0].matrix == "layers/counts"
    place = [store.gene_ids.index(f"ENSG{i:011d}") for i in range(N_GENES)]
    assert (store.read(range(N_CELLS)).toarray()[:, place] == raw).all()


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_matrices_that_differ_in_their_last_cell_alone_are_asked_about(tmp_path, make):
    path = written(tmp_path / "a.h5ad", make(counts()), counts=make(with_last(counts(), 8)))
    with pytest.raises(
        ConfigError, match=r"X and layers/counts are all raw counts.*--counts X \(in Python: counts='X'"
    ):
        built(tmp_path, path)


def test_equal_counts_are_equal_however_they_are_stored(tmp_path):
    raw = counts()
    zeros = sp.csc_matrix(raw + 1)
    zeros.data -= 1  # zeros are stored, too
    store = built(tmp_path, written(tmp_path / "a.h5ad", sp.csr_matrix(raw), counts=zeros, whole=raw.astype(np.int64)))
    assert store.manifest.sources[0].matrix == "X"


def test_raw_with_more_genes_is_another_matrix(tmp_path):
    raw = sp.csr_matrix(counts())
    path = written(tmp_path / "a.h5ad", raw[:, :5], raw=raw)
    with pytest.raises(ConfigError, match=r"X from raw, for one: 5 genes and 12"):
        built(tmp_path, path)
    path = written(tmp_path / "b.h5ad", raw[:, :5].log1p(), raw=raw)
    assert built(tmp_path, path).n_genes == N_GENES


def test_what_was_passed_is_not_advised(tmp_path):
    raw = sp.csr_matrix(counts())
    bad = with_last(counts(), 0.5)
    path = written(tmp_path / "a.h5ad", sp.csr_matrix(bad), second=sp.csr_matrix(bad))
    with pytest.raises(NotRawCountsError, match=r"No matrix of this file holds raw counts") as caught:
        built(tmp_path, path)
    assert "--counts auto" not in str(caught.value)
    path = written(tmp_path / "b.h5ad", sp.csr_matrix(bad), counts=raw)
    with pytest.raises(NotRawCountsError, match=r"pass --counts layers/counts \(.*\), or --counts auto\."):
        build(tmp_path / "s.mill", [path], vocabulary="union")
    path = written(tmp_path / "c.h5ad", sp.csr_matrix(bad), spliced=raw, unspliced=raw * 2)
    with pytest.raises(NotRawCountsError, match=r"--counts layers/spliced or --counts layers/unspliced") as caught:
        build(tmp_path / "s.mill", [path], vocabulary="union")
    assert "--counts auto" not in str(caught.value)  # it would ask which


def test_values_that_may_be_rounded_are_compared_as_rounded(tmp_path):
    raw = counts()
    path = written(tmp_path / "a.h5ad", sp.csr_matrix(raw), counts=sp.csr_matrix(with_last(raw, 7.0001)))
    assert built(tmp_path, path, allow_rounding=1e-3).manifest.sources[0].matrix == "X"
    assert built(tmp_path, path, overwrite=True).manifest.sources[0].matrix == "X"  # the other one is not raw then


def test_one_sorted_matrix_is_held_at_a_time(tmp_path, monkeypatch):
    raw = sp.csc_matrix(counts())
    path = written(tmp_path / "a.h5ad", raw, counts=raw, more=raw)
    held = []
    blocks = Source.blocks

    def watched(self, matrix=None, **kw):
        sorters = {name: reader.sorter for name, reader in self._readers.items()}
        held.append(sum(one._memory is not None for name, one in sorters.items() if name != matrix))
        return blocks(self, matrix, **kw)

    monkeypatch.setattr(Source, "blocks", watched)
    built(tmp_path, path)
    assert len(held) > 6 and max(held) == 0
