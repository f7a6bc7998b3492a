"""The loader over a real store: contents, order, ranks, workers, state."""

from __future__ import annotations

import json
import pickle
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cellmill.errors import ConfigError, FrameError, QueryError, StateMismatchError
from cellmill.loader import Dataset, Loader
from cellmill.mixture import Component, Mixture, Split
from cellmill.tokens import CSR, Dense


def cells_of(batches):
    return [batch.cells.tolist() for batch in batches]


def assert_same(one, other):
    names = dict(one.tensors())
    others = dict(other.tensors())
    assert names.keys() == others.keys()
    for name, tensor in names.items():
        assert torch.equal(tensor, others[name]), name
    assert (one.epoch, one.step, one.position) == (other.epoch, other.step, other.position)


def test_batches_are_the_cells_they_say(atlas):
    loader = Loader(atlas, batch_size=64, obs=["cell_type", "total_counts"], seed=3)
    uids = atlas.uids()
    types = atlas.column("cell_type").to_pylist()
    seen = []
    assert len(loader) == 5
    for batch in loader:
        rows = batch.rows.numpy()
        assert np.array_equal(batch.to_sparse_csr().to_dense().numpy(), atlas.read(rows).toarray())
        assert np.array_equal(batch.cells.numpy().view(np.uint64), uids[rows])
        assert [batch.categories["cell_type"][c] for c in batch.obs["cell_type"].tolist()] == [types[r] for r in rows]
        assert np.array_equal(batch.totals.numpy(), atlas.totals(rows))
        assert np.array_equal(batch.obs["total_counts"].numpy(), atlas.totals(rows))
        assert batch.values.dtype == torch.int32
        assert batch.padding is None
        seen += rows.tolist()
    assert sorted(seen) == list(range(atlas.n_cells))
    assert loader.gene_ids == tuple(atlas.genes["gene_id"].to_pylist())


def test_dense_panels_are_what_the_store_reads(atlas):
    panel = [*atlas.genes["gene_id"].to_pylist()[10:40:3]][::-1]
    for transform in ("raw", "log1p_cp10k"):
        for batch in Loader(atlas, batch_size=100, tokens=Dense(panel, transform=transform)):
            expected = atlas.read_dense(batch.rows.numpy(), genes=panel, transform=transform)
            assert np.array_equal(batch.values.numpy(), expected)
    for batch in Loader(atlas, batch_size=100, tokens=CSR(panel)):
        assert np.array_equal(batch.to_dense().numpy(), atlas.read_dense(batch.rows.numpy(), genes=panel))
        assert np.array_equal(batch.totals.numpy(), atlas.totals(batch.rows.numpy()))


@pytest.mark.parametrize("tokens", [CSR(), Dense(transform="cp10k")])
def test_several_stores_share_one_gene_axis(atlas, gut, tokens):
    mix = Mixture([Component("a", atlas, where="dataset <> 'gut-c'"), Component("b", gut)])
    loader = Loader(mix, batch_size=37, tokens=tokens)
    assert set(loader.gene_ids) == set(atlas.genes["gene_id"].to_pylist()) | set(gut.genes["gene_id"].to_pylist())
    total, mixed = 0, 0
    for batch in loader:
        matrix = batch.to_dense().numpy()
        for i, (store, row) in enumerate(zip(batch.stores.tolist(), batch.rows.tolist(), strict=True)):
            own = loader.plan.stores[store]
            expected = dict.fromkeys(loader.gene_ids, 0.0)
            transform = "raw" if isinstance(tokens, CSR) else "cp10k"
            expected.update(zip(own.gene_ids, own.read_dense([row], transform=transform)[0], strict=True))
            assert np.array_equal(matrix[i], np.array(list(expected.values()), dtype=np.float32))
        if batch.genes is not None:
            lengths = np.diff(batch.indptr.numpy())
            assert all((np.diff(g) > 0).all() for g in np.split(batch.genes.numpy(), np.cumsum(lengths)[:-1]))
        mixed += len(set(batch.stores.tolist())) == 2
        assert torch.equal(batch.component, batch.stores)
        total += len(batch)
    assert total == 300
    assert mixed > 3


def test_epochs_differ_and_each_has_every_cell_once(atlas):
    loader = Loader(atlas, batch_size=100)
    first = [uid for batch in cells_of(loader) for uid in batch]
    second = [uid for batch in cells_of(loader) for uid in batch]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 300
    assert first != second
    loader.set_epoch(0)
    assert [uid for batch in cells_of(loader) for uid in batch] == first
    both = Loader(atlas, batch_size=100, epochs=2)
    assert len(both) == 6
    assert [uid for batch in cells_of(both) for uid in batch] == first + second
    endless = iter(Loader(atlas, batch_size=100, epochs=None))
    assert [uid for _ in range(6) for uid in next(endless).cells.tolist()] == first + second
    endless.close()


def test_looking_at_a_batch_consumes_nothing(atlas):
    loader = Loader(atlas, batch_size=100)
    peeked = next(iter(loader))
    assert_same(peeked, next(iter(loader)))
    assert len(cells_of(loader)) == 3


@pytest.mark.parametrize("order", ["exact", "blocked", "stored"])
@pytest.mark.parametrize("last", ["keep", "drop", "pad"])
def test_ranks_take_slices_of_the_same_global_steps(atlas, order, last):
    options = {"batch_size": 64, "order": order, "last": last, "epochs": 2}
    whole = cells_of(Loader(atlas, **options))
    ranks = [Loader(atlas, **options, rank=r, world_size=3) for r in range(3)]
    assert {len(r) for r in ranks} == {len(whole)}
    for step, parts in zip(whole, zip(*map(cells_of, ranks), strict=True), strict=True):
        assert step == [uid for part in parts for uid in part]


def test_a_padded_batch_says_which_cells_pad(atlas):
    batches = list(Loader(atlas, batch_size=64, last="pad"))
    assert [len(b) for b in batches] == [64] * 5
    assert batches[-1].padding.sum() == 320 - 300
    real = [uid for b in batches for uid in (b.cells if b.padding is None else b.cells[~b.padding]).tolist()]
    assert len(set(real)) == len(real) == 300
    assert batches[-1].cells[batches[-1].padding].tolist() == batches[0].cells[:20].tolist()


@pytest.mark.parametrize("k", [0, 1, 4, 5, 7])
@pytest.mark.parametrize("kind", ["repeat", "proportion"])
def test_resuming_gives_the_rest_on_another_world_size(atlas, k, kind):
    amounts = ({"repeat": 1.5}, {"repeat": 1}) if kind == "repeat" else ({"proportion": 0.7}, {"proportion": 0.3})
    mix = Mixture(
        [
            Component("a", atlas, where="tissue = 'blood'", **amounts[0]),
            Component("b", atlas, where="tissue <> 'blood'", **amounts[1]),
        ]
    )
    options = {"batch_size": 60, "seed": 4, "epochs": 2}
    whole = cells_of(Loader(mix, **options))
    before = [Loader(mix, **options, rank=r, world_size=2) for r in range(2)]
    for loader in before:
        stream = iter(loader)
        for _ in range(k):
            next(stream)
        stream.close()
    states = [json.loads(json.dumps(loader.state_dict())) for loader in before]
    assert states[0] == states[1]
    after = [Loader(mix, **options, rank=r, world_size=3, prefetch=r) for r in range(3)]
    for loader in after:
        loader.load_state_dict(states[0])
        assert len(loader) == len(whole) - k
    rest = [[uid for part in parts for uid in part] for parts in zip(*map(cells_of, after), strict=True)]
    assert rest == whole[k:]


def test_a_state_of_something_else_is_refused(atlas):
    state = Loader(atlas, batch_size=100).state_dict()
    other = Mixture([Component("c", atlas, where="tissue = 'blood'")])
    with pytest.raises(StateMismatchError) as caught:
        Loader(other, batch_size=100).load_state_dict(state)
    assert state["plan"] in str(caught.value)
    assert other.plan().hash in str(caught.value)
    with pytest.raises(StateMismatchError, match="seed was 0, is 1"):
        Loader(atlas, batch_size=100, seed=1).load_state_dict(state)
    with pytest.raises(StateMismatchError, match="order"):
        Loader(atlas, batch_size=100, order="blocked").load_state_dict(state)
    with pytest.raises(StateMismatchError, match="no state of a loader"):
        Loader(atlas, batch_size=100).load_state_dict({"epoch": 1})


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_deliver_the_same_batches_in_the_same_order(atlas, context):
    mix = Mixture([Component("c", atlas)], split=Split(train=0.7, validation=0.3, test=0))
    loader = Loader(mix, batch_size=40, obs=["cell_type"], seed=2, epochs=2)
    alone = list(loader)
    loader.set_epoch(0)
    next(iter(loader))  # a thread has run in this process before the fork
    workers = DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context=context)
    together = list(workers)
    assert len(workers) == len(alone)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
    state = loader.state_dict(after=together[2])
    resumed = Loader(mix, batch_size=40, obs=["cell_type"], seed=2, epochs=2)
    resumed.load_state_dict(state)
    assert cells_of(resumed) == cells_of(alone[3:])


def test_a_fork_in_the_middle_of_an_iteration_does_no_harm(atlas):
    loader = Loader(atlas, batch_size=40)
    stream = iter(loader)
    first = next(stream)
    workers = DataLoader(Loader(atlas, batch_size=40), batch_size=None, num_workers=2, multiprocessing_context="fork")
    batches = list(workers)
    assert_same(first, batches[0])
    assert cells_of(stream) == cells_of(batches[1:])


def test_the_same_cells_whatever_prefetch_and_threads(atlas):
    plain = list(Loader(atlas, batch_size=50, prefetch=0, threads=1))
    for one, other in zip(plain, Loader(atlas, batch_size=50, prefetch=4, threads=3), strict=True):
        assert_same(one, other)


def test_an_error_in_the_reader_reaches_the_consumer(atlas, monkeypatch):
    loader = Loader(atlas, batch_size=50)
    read = loader.reader.read

    def broken(store, row, **place):
        if place["step"] == 2:
            raise FrameError("cell 7")
        return read(store, row, **place)

    monkeypatch.setattr(loader.reader, "read", broken)
    got = []
    with pytest.raises(FrameError, match="cell 7"):
        got.extend(batch.step for batch in iterate(loader, got))
    assert got == [0, 1]
    assert not [t for t in threading.enumerate() if t.name.startswith("cellmill-prefetch")]


def iterate(loader, into):
    for batch in loader:
        into.append(batch.step)
    return []


def test_a_damaged_cell_is_named_by_shard_and_row(atlas, tmp_path):
    import shutil

    from cellmill.store import open_store

    shutil.copytree(atlas.path, tmp_path / "bad.mill")
    store = open_store(tmp_path / "bad.mill")
    entry = store.manifest.shards[0]
    _, _, start, stop = store.frames(np.array([5]))
    shard = store.path / entry.cells.path
    data = bytearray(shard.read_bytes())
    header = len(data) - len(store.frames(np.array([5]))[0][0])
    assert header > 0
    frames_start = data.index(bytes(store.frames(np.array([5]))[0][0][:64]))
    data[frames_start + int(start[0]) : frames_start + int(stop[0])] = b"\xff" * int(stop[0] - start[0])
    shard.write_bytes(bytes(data))
    with pytest.raises(FrameError, match="row 5 of the store"):
        list(Loader(open_store(store.path), batch_size=64))


def test_loaders_pickle(atlas):
    loader = Loader(atlas, batch_size=64, obs=["donor_id"])
    again = pickle.loads(pickle.dumps(loader))
    for one, other in zip(loader, again, strict=True):
        assert_same(one, other)


def test_obs_codes_do_not_depend_on_the_cells_and_can_be_fixed(atlas):
    blood = Mixture([Component("c", atlas, where="tissue = 'blood'")])
    assert Loader(blood, obs=["tissue"]).categories == Loader(atlas, obs=["tissue"]).categories
    fixed = Loader(atlas, batch_size=300, obs={"tissue": ["moon", "blood"]}, order="stored")
    codes = next(iter(fixed)).obs["tissue"]
    assert set(codes.tolist()) == {1, -1}
    assert (codes == 1).sum() == len(atlas.select("tissue = 'blood'"))


def test_reports_count_cells_waits_and_mixing(atlas):
    loader = Loader(atlas, batch_size=50, obs=["study"])
    list(loader)
    report = loader.report()
    assert report["cells"] == 300
    assert report["batches"] == 6
    mixing = report["label_entropy"]["study"]
    assert mixing["all_bits"] == pytest.approx(np.log2(3), abs=1e-3)
    assert mixing["batch_bits"] == pytest.approx(mixing["ideal_bits"], abs=0.1)
    stored = Loader(atlas, batch_size=50, obs=["study"], order="stored")
    list(stored)
    assert stored.report()["label_entropy"]["study"]["batch_bits"] < 0.1


def test_what_cannot_be_meant_is_refused(atlas):
    with pytest.raises(ConfigError, match="Did you mean 'cell_type'"):
        Loader(atlas, obs=["celltype"])
    with pytest.raises(ConfigError, match=r"write \['cell_type'\]"):
        Loader(atlas, obs="cell_type")
    with pytest.raises(QueryError, match="1 genes of the panel are in none of the stores, for example 'ENSX'"):
        Loader(atlas, tokens=Dense(["ENSX", *atlas.gene_ids[:3]]))
    zero = Loader(atlas, tokens=Dense(["ENSX", *atlas.gene_ids[:3]]), missing_genes="zero")
    assert not next(iter(zero)).values[:, 0].any()
    assert zero.report()["genes_missing_by_store"] == {str(atlas.path): 1}
    with pytest.raises(ConfigError, match="twice"):
        Loader(atlas, tokens=Dense([atlas.gene_ids[0]] * 2))
    with pytest.raises(ConfigError, match="has 2 cells, fewer than the 4 ranks"):
        Loader(Mixture([Component("c", atlas, choose=202)]), batch_size=40, rank=0, world_size=4)
    with pytest.raises(ConfigError, match="leaves nothing"):
        Loader(atlas, batch_size=512, last="drop")
    with pytest.raises(ConfigError, match="give both"):
        Loader(atlas, rank=1)
    with pytest.raises(ConfigError, match="epochs"):
        Loader(atlas, epochs=0)
    with pytest.raises(TypeError, match="no length"):
        len(Loader(atlas, epochs=None))


def test_rank_and_world_size_come_from_the_environment(atlas, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = Loader(atlas)
    assert (loader.schedule.rank, loader.schedule.world_size) == (1, 2)


def test_the_map_style_face_reads_whole_batches(atlas):
    rows = atlas.select("tissue = 'blood'")
    cells = Dataset(atlas, obs=["cell_type"], rows=rows)
    assert len(cells) == len(rows)
    loaded = DataLoader(cells, batch_size=64, shuffle=True, collate_fn=cells.collate, num_workers=2)
    seen = [row for batch in loaded for row in batch.rows.tolist()]
    assert sorted(seen) == rows.tolist()
    assert np.array_equal(cells[-1].to_dense().numpy(), atlas.read([rows[-1]]).toarray())
    with pytest.raises(IndexError):
        cells[len(rows)]
