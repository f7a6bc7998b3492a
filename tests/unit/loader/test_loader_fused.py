"""Cells that are decoded by the kernel that makes their tokens: the same batches and errors, and no array between."""

from __future__ import annotations

import copy
import pickle
import shutil

import numpy as np
import pytest

from cellmill import kernel
from cellmill.errors import FrameError
from cellmill.loader import Loader
from cellmill.store import open_store
from cellmill.tokens import UCE, CountDiffusion, Geneformer, ScGPT, StateSE, Tahoe
from cellmill.tokens.kernel_counts import encoded_of, is_of_kernel, later_counts

pytestmark = pytest.mark.skipif(not kernel.EncodedRows.possible(), reason="the kernel in NumPy decodes first")


def recipes(store):
    rng = np.random.default_rng(0)
    ids = store.gene_ids
    medians = {int(token): rng.random() + 0.5 for token in store.genes["token"].to_numpy()}
    return {
        "scgpt": ScGPT(max_length=40, mask=0.4),
        "both": ScGPT(max_length=40, mask=0.5, style="both"),
        "tahoe": Tahoe(max_length=60, mask=0.5),
        "geneformer": Geneformer(medians=medians, max_length=50),
        "uce": UCE(
            {gene: 10 + i for i, gene in enumerate(ids)},
            {gene: i % 7 for i, gene in enumerate(ids)},
            {gene: int(rng.integers(10**6)) for gene in ids},
            vocabulary=store.vocabulary,
            sample_size=40,
            max_length=200,
        ),
        "state": StateSE({gene: 10 + i for i, gene in enumerate(ids)}, vocabulary=store.vocabulary, max_length=40),
        "expressed": CountDiffusion(max_length=30, n_counts=16),
        "panel": CountDiffusion(panel=ids[5:60], vocabulary=store.vocabulary, n_counts=16),
    }


EVERY = ("scgpt", "both", "tahoe", "geneformer", "uce", "state", "expressed", "panel")


@pytest.fixture
def gathered(monkeypatch):
    """Counts how often counts were decoded into arrays."""
    seen = []
    for where, name in ((kernel.EncodedRows, "gather"), (kernel, "gather_rows")):
        whole = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *args, _whole=whole, **how: seen.append(1) or _whole(*args, **how))
    return seen


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_no_counts_are_written_and_the_tokens_are_those_of_encode(atlas, gathered, name, threads):
    loader = Loader(atlas, batch_size=64, tokens=recipes(atlas)[name], seed=3, threads=threads)
    batches = list(loader)
    assert not gathered
    for batch in batches:
        rows = batch.rows.numpy()
        keys = kernel.keyed_u64(kernel.derive_key(3, "tokens", batch.epoch), batch.cells.numpy().view(np.uint64))
        made = loader.reader.tokens.encode(atlas.read(rows), loader.reader.axis.tokens, keys)
        for what in ("values", "genes", "target", "mask", "lengths"):
            wanted = getattr(made, what)
            assert (getattr(batch, what) is None) if wanted is None else getattr(batch, what).equal(wanted), what
        assert batch.extra.keys() == made.extra.keys()
        assert all(batch.extra[what].equal(wanted) for what, wanted in made.extra.items())
        assert batch.totals.tolist() == atlas.totals(rows).tolist()


@pytest.mark.parametrize("name", ["scgpt", "geneformer", "uce", "expressed"])
def test_threads_change_nothing(atlas, name):
    rows = np.random.default_rng(0).integers(0, 300, 3000)  # so many that several threads are worth starting
    reader = Loader(atlas, batch_size=8, tokens=recipes(atlas)[name]).reader
    one, four = (reader.read(np.zeros_like(rows), rows, threads=threads) for threads in (1, 4))
    assert one.genes.equal(four.genes) and one.values.equal(four.values) and one.totals.equal(four.totals)


class Doubling:
    """A recipe of somebody else that says of itself that it is fused, and changes the counts it is given."""

    fused = True
    genes = None

    def __init__(self):
        self.own = ScGPT(max_length=40, n_bins=None, mask=None)

    def encode(self, counts, genes, keys, **about):
        counts.data[:] = counts.data * 2
        return self.own.encode(counts, genes, keys, **about)

    def to_dict(self):
        return {"recipe": "doubling"}


def test_who_asks_for_counts_gets_them(atlas, gathered):
    (batch,) = Loader(atlas, batch_size=300, tokens=Doubling(), seed=3)
    assert gathered
    counts = atlas.read(batch.rows.numpy())
    counts.data *= 2
    keys = kernel.keyed_u64(kernel.derive_key(3, "tokens", 0), batch.cells.numpy().view(np.uint64))
    expected = Doubling().own.encode(counts, atlas.genes["token"].to_numpy(), keys)
    assert batch.values.equal(expected.values)
    assert batch.totals.tolist() == atlas.totals(batch.rows.numpy()).tolist()  # as they were counted


def later(store, rows):
    return store.gather_later(np.asarray(rows))


def test_a_matrix_decodes_itself_when_it_is_looked_into(atlas):
    rows = np.array([5, 2, 299, 5])
    expected = atlas.read(rows)
    for look in (
        lambda m: m.toarray(),
        lambda m: m[:].toarray(),
        lambda m: m.copy().toarray(),
        lambda m: (m * 1).toarray(),
        lambda m: copy.deepcopy(m).toarray(),
        lambda m: pickle.loads(pickle.dumps(m)).toarray(),
        lambda m: m.astype(np.float64).toarray(),
    ):
        matrix = later_counts(later(atlas, rows))
        assert matrix.shape == expected.shape and matrix.nnz == expected.nnz
        assert encoded_of(matrix) is not None
        assert np.array_equal(look(matrix), expected.toarray())
    assert encoded_of(matrix) is None and is_of_kernel(matrix)
    assert np.array_equal(matrix.sum(axis=1), atlas.totals(rows))
    replaced = later_counts(later(atlas, rows))
    replaced.data = replaced.data * 3
    assert encoded_of(replaced) is None and not is_of_kernel(replaced)
    assert np.array_equal(replaced.toarray(), expected.toarray() * 3)
    moved = later_counts(later(atlas, rows))
    moved.indptr = moved.indptr.copy()
    assert encoded_of(moved) is None


def test_totals_are_there_whoever_decodes(atlas):
    rows = np.arange(40)
    assert later(atlas, rows).totals.tolist() == atlas.totals(rows).tolist()
    assert later(atlas, rows[:0]).totals.tolist() == []


@pytest.fixture
def damaged(atlas, tmp_path):
    """A copy of the atlas in which the frame of row 7 begins as one does, and that of row 9 does not."""
    place = shutil.copytree(atlas.path, tmp_path / "damaged.mill")
    buffers, shard_of, start, stop = atlas.frames(np.array([7, 9]))
    path = place / atlas.manifest.shards[0].cells.path
    data = bytearray(path.read_bytes())
    for row, kept in ((0, 6), (1, 0)):
        frame = bytes(buffers[int(shard_of[row])][int(start[row]) : int(stop[row])])
        assert data.count(frame) == 1
        at = data.find(frame)
        data[at + kept : at + len(frame)] = b"\xff" * (len(frame) - kept)
    path.write_bytes(data)
    store = open_store(place)
    assert len(later(store, [7]).indptr) == 2
    return store


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("rows", "bad"), [([3, 7, 8], 7), ([3, 9, 8], 9), ([9, 7], 9), ([3] * 100 + [7] * 40, 7)])
def test_a_frame_that_is_none_is_told_as_elsewhere(damaged, name, rows, bad):
    with pytest.raises(FrameError) as plain:
        damaged.read(rows)
    reader = Loader(damaged, batch_size=8, tokens=recipes(damaged)[name], threads=2).reader
    store = np.zeros(len(rows), dtype=np.int64)
    for _ in range(2):
        with pytest.raises(FrameError) as fused:
            reader.read(store, np.array(rows))
        assert f"row {bad} of the store" in str(fused.value)
        assert str(fused.value) == str(plain.value)
    matrix = later_counts(later(damaged, [3, 7]))
    for _ in range(2):
        with pytest.raises(FrameError, match="row 7 of the store"):
            matrix.toarray()
    with pytest.raises(FrameError, match="row 9 of the store"):
        later(damaged, [3, 9])
