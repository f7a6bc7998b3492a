"""Plans over many inputs hold little of each, and make the same store."""

from __future__ import annotations

import pytest

from cellmill.ingest import build, candidates
from cellmill.ingest.candidates import Candidates
from cellmill.ingest.options import BuildOptions


@pytest.fixture
def files(tmp_path, tiny_h5ad):
    made = []
    for number in range(5):
        file = tiny_h5ad(n_cells=20 + number, n_genes=30, seed=number)
        made.append(file.path.rename(tmp_path / f"input-{number}.h5ad"))
    return made


def few(monkeypatch, *, open_inputs: int, window_bytes: int) -> None:
    monkeypatch.setattr(candidates, "_OPEN_INPUTS", open_inputs)
    monkeypatch.setattr(candidates, "_WINDOW_BYTES", window_bytes)


@pytest.mark.parametrize(("open_inputs", "window_bytes"), [(64, 1), (2, 1 << 30), (2, 1), (2, 4000)])
def test_what_is_let_go_changes_no_count(files, tmp_path, monkeypatch, open_inputs, window_bytes):
    usual = build(tmp_path / "usual.mill", files, vocabulary="union")
    few(monkeypatch, open_inputs=open_inputs, window_bytes=window_bytes)
    other = build(tmp_path / "other.mill", files, vocabulary="union")
    rows = range(usual.n_cells)
    assert other.gene_ids == usual.gene_ids  # all windows decide the order, kept or not
    assert (other.read(rows) != usual.read(rows)).nnz == 0
    assert other.obs.to_arrow().equals(usual.obs.to_arrow())
    # the model of head genes is made from the windows that are kept
    assert (other.digest == usual.digest) == (window_bytes == 1 << 30)


def test_files_are_closed_and_gene_axes_shared(files, monkeypatch):
    few(monkeypatch, open_inputs=2, window_bytes=1)
    looked_at = Candidates(BuildOptions(), n_inputs=len(files))
    found = [looked_at.open(path) for path in files]
    assert [one.kept is None for one in found] == [False, True, True, True, True]
    assert all(one.source._inner is None for one in found)
    assert len({id(one.source.genes_of(one.matrix)) for one in found}) == 1
    assert [one.source.n_cells for one in found] == [20, 21, 22, 23, 24]
    assert found[1].source.obs().num_rows == 21
    assert sum(len(window.indptr) - 1 for window in found[2].windows) == 22
    assert found[2].source._inner is None  # closed again after reading
