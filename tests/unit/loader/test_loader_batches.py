"""The loader over a real store: contents, order, ranks, workers, state."""

from __future__ import annotations

import json
import math
import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from cellmill.errors import ConfigError, FrameError, QueryError, StateMismatchError
from cellmill.loader import Dataset, Loader
from cellmill.loader.diagnostics import ideal_entropy_bits
from cellmill.loader.obs import load_obs
from cellmill.mixture import Blocked, Component, Mixture, Split
from cellmill.tokens import CSR, Dense, ScGPT, TokenBatch


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


@pytest.mark.parametrize("prefetch", [None, 1, 4, 40])
@pytest.mark.parametrize(
    "recipe", [CSR(), Dense(transform="log1p_cp10k"), ScGPT(max_length=20)], ids=["csr", "dense", "scgpt"]
)
def test_batches_read_several_at_a_time_are_those_read_alone(atlas, gut, recipe, prefetch):
    """Over the ends of epochs, with a last batch that is padded, of one store and of several, thinned or not."""
    mix = Mixture([Component("a", atlas, where="dataset <> 'gut-c'"), Component("b", gut)])
    for source, more in ((atlas, {}), (mix, {"downsample": 30})):
        options = {"batch_size": 17, "epochs": 3, "obs": ["cell_type"], "last": "pad", "tokens": recipe, **more}
        alone = list(Loader(source, **options, prefetch=0, threads=1))
        assert sum(batch.padding is not None for batch in alone) == 3
        loader = Loader(source, **options, prefetch=prefetch, threads=3)
        group = loader._how_far_ahead().group
        assert group > 1 if prefetch in (None, 40) else group == 1
        for one, other in zip(alone, loader, strict=True):
            assert_same(one, other)


def test_what_is_read_together_is_no_part_of_another_batch(atlas):
    """Views of one buffer, each of its own part: what is done to a batch in place is seen in no other."""
    options = {"batch_size": 20, "obs": ["cell_type"]}
    alone = list(Loader(atlas, **options, prefetch=0))
    for one, other in zip(alone, Loader(atlas, **options), strict=True):
        assert_same(one, other)
        for _, tensor in other.tensors():
            tensor.zero_()


def test_an_error_in_the_reader_reaches_the_consumer(atlas, monkeypatch):
    loader = Loader(atlas, batch_size=30)
    read = loader.reader.read_several

    def broken(store, row, batches, **how):
        if any(place["step"] == 2 for _, place in batches):  # the second of those that are read together
            raise FrameError("cell 7")
        return read(store, row, batches, **how)

    monkeypatch.setattr(loader.reader, "read_several", broken)
    got = []
    with pytest.raises(FrameError, match="cell 7"):
        got.extend(batch.step for batch in iterate(loader, got))
    assert got == [0, 1]
    patience = time.monotonic() + 5  # what the other reader is about it ends
    while any(t.name.startswith("cellmill-prefetch") for t in threading.enumerate()) and time.monotonic() < patience:
        time.sleep(0.01)
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
    named = atlas.genes.slice(0, 2).to_pylist()
    told = f"2 of them are symbols here: {named[0]['symbol']} is {named[0]['gene_id']}, "
    with pytest.raises(QueryError, match=told):
        Loader(atlas, tokens=Dense([gene["symbol"] for gene in named]))
    for wrong, said in (("nonsense", "'nonsense'"), ("dense", "Did you mean 'Dense'"), (Dense, "Dense")):
        with pytest.raises(ConfigError, match=rf"must be a recipe, found .*{said}.*cellmill\.tokens\.CSR\(\)"):
            Loader(atlas, tokens=wrong)
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


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_follow_the_loader(atlas, context):
    loader = Loader(atlas, batch_size=20, seed=2)
    alone = [cells_of(Loader(atlas, batch_size=20, seed=2, epochs=4))[e * 15 : (e + 1) * 15] for e in range(4)]
    workers = DataLoader(
        loader, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=context,
    )  # fmt: skip
    for epoch, n in ((0, 4), (1, 15), (0, 15), (2, 7), (3, 15)):
        loader.set_epoch(epoch)
        got = []
        for batch in workers:
            got.append(batch)
            if len(got) == n:
                break
        assert cells_of(got) == alone[epoch][:n]
    loader.load_state_dict(loader.state_dict(after=got[5]))
    assert cells_of(workers) == alone[3][6:]


def test_a_state_under_workers_needs_the_last_batch(atlas):
    loader = Loader(atlas, batch_size=100)
    workers = DataLoader(loader, batch_size=None, num_workers=1)
    batches = list(workers)
    with pytest.raises(ConfigError, match=r"state_dict\(after=batch\)"):
        loader.state_dict()
    assert loader.state_dict(after=batches[1])["position"] == 200
    loader.set_epoch(1)
    assert loader.state_dict()["position"] == 300
    next(iter(workers))
    stream = iter(loader)  # this process reads by itself again
    next(stream)
    assert loader.state_dict()["position"] == 400


def test_the_rest_of_a_finished_run_is_nothing(atlas):
    options = {"batch_size": 100, "epochs": 3}
    done = Loader(atlas, **options)
    batches = list(done)
    for state in (done.state_dict(), done.state_dict(after=batches[-1])):
        again = Loader(atlas, **options)
        again.load_state_dict(json.loads(json.dumps(state)))
        assert len(again) == 0
        assert list(again) == []
        assert again.state_dict()["position"] == 900
        assert [batch.epoch for batch in again] == [3, 3, 3, 4, 4, 4, 5, 5, 5]
        longer = Loader(atlas, batch_size=100, epochs=5)
        longer.load_state_dict(state)
        assert [batch.epoch for batch in longer] == [3, 3, 3, 4, 4, 4]


def test_an_iteration_has_all_its_epochs_wherever_it_begins(atlas):
    loader = Loader(atlas, batch_size=100, epochs=2)
    loader.set_epoch(1)
    assert len(loader) == 6
    batches = list(loader)
    assert [batch.epoch for batch in batches] == [1, 1, 1, 2, 2, 2]
    second = list(loader)
    assert [batch.epoch for batch in second] == [3, 3, 3, 4, 4, 4]
    for last, rest in ((batches[1], batches[2:]), (second[0], second[1:])):
        resumed = Loader(atlas, batch_size=100, epochs=2)
        resumed.load_state_dict(loader.state_dict(after=last) if last is second[0] else state_in(atlas, last))
        assert cells_of(resumed) == cells_of(rest)


def state_in(atlas, last):
    loader = Loader(atlas, batch_size=100, epochs=2)
    loader.set_epoch(1)
    return loader.state_dict(after=last)


@pytest.mark.parametrize("name", ["position", "began"])
def test_a_state_that_cannot_be_is_refused(atlas, name):
    loader = Loader(atlas)
    for value in (-5, "3", None, True):
        with pytest.raises(StateMismatchError, match=f"{name} is {value!r}"):
            loader.load_state_dict({**loader.state_dict(), name: value})
    with pytest.raises(StateMismatchError, match="no state of a loader"):
        loader.load_state_dict(None)


def test_arguments_of_another_type_are_refused(atlas):
    with pytest.raises(ConfigError, match="expected a Mixture, Plan or Store, found None"):
        Loader(None)
    with pytest.raises(ConfigError, match=r"missing_genes must be one of refuse, zero, found 'zeros'"):
        Loader(atlas, missing_genes="zeros")
    with pytest.raises(ConfigError, match=r"np\.flatnonzero"):
        Dataset(atlas, rows=np.arange(300) < 5)
    with pytest.raises(ConfigError, match="batch_size must be a whole number"):
        Loader(atlas, batch_size=4.0)
    with pytest.raises(ConfigError, match="rank must be a whole number"):
        Loader(atlas, rank=0.5, world_size=2)
    assert len(next(iter(Loader(atlas, batch_size=np.int64(4), seed=np.int64(1))))) == 4
    assert len(Dataset(atlas, rows=[])) == 0


def test_whole_numbers_of_obs_keep_every_digit(atlas):
    batch = next(iter(Loader(atlas, batch_size=100, obs=["uid", "total_counts"])))
    assert batch.obs["uid"].dtype == torch.int64
    assert torch.equal(batch.obs["uid"], batch.cells)


def fake_stores(*columns):
    return [
        SimpleNamespace(path="x", obs=SimpleNamespace(columns=("c",)), column=lambda name, column=column: column)
        for column in columns
    ]


def test_numbers_of_obs_have_one_type_in_all_stores():
    big = 2**24 + 1
    (column,) = load_obs(fake_stores(pa.array([big]), pa.array([None, 1])), ["c"])
    assert [values.dtype for values in column.values] == [np.float64] * 2
    assert column.values[0][0] == big
    assert np.isnan(column.values[1][0])
    (column,) = load_obs(fake_stores(pa.array([1]), pa.array([0.5])), ["c"])
    assert [values.dtype for values in column.values] == [np.float32] * 2
    (column,) = load_obs(fake_stores(pa.array([2**64 - 1], pa.uint64())), ["c"])
    assert column.values[0].view(np.uint64)[0] == 2**64 - 1
    (column,) = load_obs(fake_stores(pa.array([True, None])), ["c"])
    assert column.values[0][0] == 1
    assert np.isnan(column.values[0][1])


def test_categories_are_sorted_whatever_comes_first():
    (column,) = load_obs(fake_stores(pa.array(["c", "a"]), pa.array(["b", "a"])), ["c"])
    assert column.categories == ("a", "b", "c")
    assert [values.tolist() for values in column.values] == [[2, 0], [1, 0]]


def test_the_ideal_entropy_has_one_degree_of_freedom_less_than_labels():
    counts = np.array([50, 50, 0, 50, 50])
    assert ideal_entropy_bits(counts, 10) == pytest.approx(2 - 3 / (20 * math.log(2)))


class KeyRecipe:
    """A recipe that hands out its keys as values."""

    genes = None

    def encode(self, counts, genes, keys, *, totals=None):
        del counts, genes, totals
        return TokenBatch(values=torch.from_numpy(keys.view(np.int64)))

    def to_dict(self):
        return {"recipe": "keys"}


def test_keys_of_recipes_follow_seed_epoch_and_cell(atlas):
    def keys(**options):
        batches = list(Loader(atlas, tokens=KeyRecipe(), epochs=2, batch_size=300, **options))
        return [dict(zip(b.cells.tolist(), b.values.tolist(), strict=True)) for b in batches]

    one, other = keys(), keys(seed=1)
    assert one == keys(order="blocked")
    for cell in list(one[0])[:20]:
        assert len({one[0][cell], one[1][cell], other[0][cell], other[1][cell]}) == 4
    assert len(set(one[0].values())) == 300


def test_a_loader_of_another_batch_size_goes_on_with_the_next_cell(atlas):
    whole = np.concatenate([batch.rows.numpy() for batch in Loader(atlas, batch_size=100)])
    loader = Loader(atlas, batch_size=100)
    first = next(iter(loader))
    other = Loader(atlas, batch_size=37)
    other.load_state_dict(loader.state_dict(after=first))
    rest = [batch.rows.numpy() for batch in other]
    assert len(rest[0]) == 37
    np.testing.assert_array_equal(np.concatenate(rest), whole[100:])
    blocked = Loader(atlas, batch_size=100, order="blocked").state_dict()
    with pytest.raises(StateMismatchError, match=r"mixture.Blocked\(block_cells=64, window_blocks=1600\)"):
        Loader(atlas, batch_size=37, order="blocked").load_state_dict(blocked)
    Loader(atlas, batch_size=37, order=Blocked(block_cells=64, window_blocks=1600)).load_state_dict(blocked)


def test_mixture_loader_and_batch_say_in_a_line_what_they_are(atlas):
    mix = Mixture([Component("blood", atlas, where="tissue = 'blood'")], name="mine")
    assert repr(mix) == "<Mixture 'mine' of 1 components: blood; plan() shows cells and shares>"
    loader = Loader(mix, batch_size=50, obs=["cell_type"])
    n = len(atlas.select("tissue = 'blood'"))
    assert repr(loader).startswith(f"<Loader of {n:,} cells, {n:,} draws an epoch in batches of 50, epochs: 1, ")
    batch = next(iter(loader))
    assert "values=int32[" in repr(batch)
    assert "obs={cell_type: int64[50]}" in repr(batch)
    assert "tensor(" not in repr(batch)
    assert len(repr(batch)) < 600
