"""A loader of sets, pairs and chunks over real stores: contents, controls, ranks, workers, state, refusals."""

from __future__ import annotations

import copy
import json
import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import cellmill as cm
from cellmill.errors import ConfigError, InputError, MixtureError, StateMismatchError
from cellmill.loader import Loader
from cellmill.mixture import Balance, Component, Mixture, plan_cells
from cellmill.tokens import Dense

CONTROL = "target = 'ctrl'"
SETS = cm.Sets(size=8, by=["target", "batch"], control=CONTROL, match=["batch"])


def same(one, other):
    names, others = dict(one.tensors()), dict(other.tensors())
    assert names.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in names.items())
    assert (one.epoch, one.step, one.position, one.n_units, one.set_size) == (
        *(other.epoch, other.step, other.position, other.n_units, other.set_size),
    )


@pytest.fixture(scope="module")
def mix(screens):
    return Mixture([Component("a", list(screens))])


def test_sets_share_their_keys_and_stand_before_their_controls(mix, screens):
    loader = Loader(mix, batch_size=5, tokens=Dense(), units=SETS, seed=1, last="pad")
    seen, stores_mixed = Counter(), 0
    for batch in loader:
        assert len(batch) == batch.n_units * 16
        assert batch.unit.tolist() == [i // 16 for i in range(len(batch))]
        assert batch.is_control.tolist() == [i % 16 >= 8 for i in range(len(batch))]
        x, controls = batch.sets(batch.values), batch.controls(batch.values)
        assert x.shape == controls.shape == (batch.n_units, 8, len(loader.gene_ids))
        assert x.data_ptr() == batch.values.data_ptr()  # views, no copies
        target, of_batch = batch.obs["target"], batch.obs["batch"]
        names = np.array(loader.categories["target"])
        assert (names[batch.controls(target)] == "ctrl").all()
        assert not (names[batch.sets(target)] == "ctrl").any()
        assert (batch.sets(target) == batch.sets(target)[:, :1]).all()
        assert (batch.sets(of_batch) == batch.controls(of_batch)[:, :1]).all()
        cells = list(zip(batch.stores.tolist(), batch.rows.tolist(), strict=True))
        for i in np.random.default_rng(0).choice(len(cells), 6):
            store, row = cells[i]
            expected = dict(zip(screens[store].gene_ids, screens[store].read_dense([row])[0], strict=True))
            assert batch.values[i].tolist() == [expected.get(gene, 0) for gene in loader.gene_ids]
        stores_mixed += len(set(batch.stores.tolist())) == 2
        real = torch.ones(len(batch), dtype=torch.bool) if batch.padding is None else ~batch.padding
        keep = (real & ~batch.is_control).tolist()
        seen.update(cell for cell, kept in zip(cells, keep, strict=True) if kept)
    assert stores_mixed  # groups go over stores
    own = {(s, r) for s, store in enumerate(screens) for r in store.select("target <> 'ctrl'").tolist()}
    assert seen.keys() == own
    assert seen.total() == len(loader.plan.cuts[0].groups.members) + loader.plan.counts.cells_filled_up


def test_padded_units_mark_what_fills_them_up(mix):
    units = cm.Sets(size=8, by=["target", "batch"], short="pad")
    loader = Loader(mix, batch_size=4, units=units, last="pad")
    real, marked = [], 0
    for batch in loader:
        fills = torch.zeros(len(batch), dtype=torch.bool) if batch.padding is None else batch.padding
        real += batch.cells[~fills].tolist()
        marked += int(fills.sum())
    assert len(real) == len(set(real)) == 320
    n_fill = -loader.plan.n_draws % 4  # units at the end, once more; these may have cells that fill up as well
    assert loader.plan.counts.cells_filled_up <= marked <= loader.plan.counts.cells_filled_up + 8 * n_fill


@pytest.mark.parametrize("units", [SETS, cm.Pairs(CONTROL, match=["batch", "line"]), cm.Chunks(7, by=["batch"])])
def test_ranks_resumption_and_workers_give_the_same_units(mix, units):
    options = {"batch_size": 6, "units": units, "seed": 4, "epochs": 2, "last": "pad"}
    whole = list(Loader(mix, **options))
    before = [Loader(mix, **options, rank=r, world_size=2) for r in range(2)]
    parts = []
    for loader in before:
        stream = iter(loader)
        parts.append([next(stream) for _ in range(3)])
        stream.close()
    for step, pair in zip(whole, zip(*parts, strict=True), strict=False):
        assert step.cells.tolist() == pair[0].cells.tolist() + pair[1].cells.tolist()
        assert step.n_units == pair[0].n_units + pair[1].n_units
    state = json.loads(json.dumps(before[0].state_dict()))
    after = [Loader(mix, **options, rank=r, world_size=3) for r in range(3)]
    for loader in after:
        loader.load_state_dict(state)
    rest = [[uid for part in step for uid in part.cells.tolist()] for step in zip(*map(list, after), strict=True)]
    assert rest == [batch.cells.tolist() for batch in whole[3:]]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_deliver_the_same_units_in_the_same_order(mix, context):
    options = {"batch_size": 6, "units": SETS, "seed": 4}
    loader = Loader(mix, **options)
    alone = list(loader)
    loader.set_epoch(0)
    together = list(DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context=context))
    for one, other in zip(alone, together, strict=True):
        same(one, other)
    resumed = Loader(mix, **options)
    resumed.load_state_dict(loader.state_dict(after=together[1]))
    assert [b.cells.tolist() for b in resumed] == [b.cells.tolist() for b in alone[2:]]


def test_pairs_are_of_one_match_and_use_every_control_alike(mix):
    loader = Loader(mix, batch_size=50, units=cm.Pairs(CONTROL, match=["batch", "line"]), obs={"line": ["y", "x"]})
    used = {}
    for batch in loader:
        for name in ("batch", "line"):
            assert torch.equal(batch.sets(batch.obs[name]), batch.controls(batch.obs[name]))
        keys = batch.controls(batch.obs["batch"] * 2 + batch.obs["line"])[:, 0].tolist()
        for key, uid in zip(keys, batch.controls(batch.cells)[:, 0].tolist(), strict=True):
            used.setdefault(key, Counter())[uid] += 1
    assert loader.categories["line"] == ("y", "x")
    assert sum(map(len, used.values())) == loader.plan.counts.controls
    assert all(max(counts.values()) - min(counts.values()) <= 1 for counts in used.values())


def test_chunks_follow_a_column(mix, screens):
    batches = list(Loader(mix, batch_size=4, units=cm.Chunks(10, by=["batch"], along="total_counts", short="drop")))
    lowest = {}
    for batch in batches:
        totals, label = batch.sets(batch.obs["total_counts"]), batch.sets(batch.obs["batch"])
        assert (totals.diff(dim=1) >= 0).all()
        assert (label == label[:, :1]).all()
        for one, values in zip(label[:, 0].tolist(), totals, strict=True):
            lowest.setdefault(one, []).append(values)
    for chunks in lowest.values():  # neighbours along the column: no chunk reaches into another one
        chunks.sort(key=lambda values: (values[0].item(), values[-1].item()))
        assert all(one[-1] <= other[0] for one, other in pairwise(chunks))
    with pytest.raises(InputError, match="no controls"):
        batches[0].controls(batches[0].cells)


def test_counts_say_what_becomes_of_the_cells(mix):
    drop = Loader(mix, batch_size=4, units=cm.Sets(8, by=["target"], control=CONTROL, short="drop"))
    counts = drop.report()["units"]
    assert counts["groups"] == 4
    assert counts["small_groups"] == 1  # six cells of KO4
    assert counts["units"] == sum(len(batch.sets(batch.cells)) for batch in drop)
    assert counts["cells"] == counts["units"] * 8 + counts["cells_left_out"]
    assert "small groups" in str(drop.plan)
    assert json.dumps(drop.plan.to_dict())
    assert "units of 16 cells" in repr(drop)


def test_cells_without_a_control_are_refused_or_taken_or_dropped(screens):
    rows = [np.setdiff1d(np.arange(s.n_cells), s.select(f"{CONTROL} AND batch = '3'")) for s in screens]
    plan = plan_cells({"all": list(zip(screens, rows, strict=True))})
    with pytest.raises(MixtureError, match=r"cells \(4 groups\) have no control.*where batch='3'.*unmatched='any'"):
        Loader(plan, batch_size=4, units=SETS)
    settings = {"size": 8, "by": ["target", "batch"], "control": CONTROL, "match": ["batch"]}
    taken, dropped = (Loader(plan, batch_size=4, units=cm.Sets(**settings, unmatched=u)) for u in ("any", "drop"))
    third = dropped.categories["batch"].index("3")
    assert all((batch.obs["batch"] != third).all() for batch in dropped)
    n_third = sum(len(s.select("target <> 'ctrl' AND batch = '3'")) for s in screens)
    assert taken.plan.counts.cells_unmatched == dropped.plan.counts.cells_unmatched == n_third
    assert taken.plan.counts.cells - dropped.plan.counts.cells == n_third
    of_third = [batch.controls(batch.obs["batch"])[batch.sets(batch.obs["batch"])[:, 0] == third] for batch in taken]
    assert set(torch.cat(of_third).unique().tolist()) == {0, 1}
    with pytest.raises(MixtureError, match="no cell of the plan is a control"):
        Loader(plan, batch_size=4, units=cm.Pairs("target = 'scrambled'"))


def test_controls_may_be_a_component_of_their_own(screens):
    stores = list(screens)
    mix = Mixture([Component("ko", stores, where="target <> 'ctrl'"), Component("ctrl", stores, where=CONTROL)])
    for batch in Loader(mix, batch_size=9, units=SETS):
        assert torch.equal(batch.component, batch.is_control.long())
    shares = [
        Component("ko", stores, where="target <> 'ctrl'", proportion=0.5),
        Component("ctrl", stores, where=CONTROL, proportion=0.5),
    ]
    with pytest.raises(MixtureError, match=r"'ctrl' has no unit.*controls alone"):
        Loader(Mixture(shares), batch_size=9, units=SETS)


def test_units_and_ladders_come_from_yaml(screens, tmp_path):
    text = f"""
units: {{kind: sets, size: 8, by: [target, batch], control: "{CONTROL}", match: [batch]}}
ladder: [50%, 1.0]
components: [{{name: a, store: [{screens[0].path}, {screens[1].path}]}}]
"""
    (tmp_path / "mix.yaml").write_text(text)
    read = Mixture.from_yaml(tmp_path / "mix.yaml")
    assert read.units == SETS
    given = Loader(Mixture([Component("a", list(screens))]), units=SETS, batch_size=4, seed=1)
    for loader in (Loader(read, batch_size=4, seed=1), Loader(given.plan, batch_size=4, seed=1)):
        assert loader.plan.hash == given.plan.hash
        same(next(iter(loader)), next(iter(given)))
    assert read.plan().units == SETS  # of cells, and says what is to be drawn
    half, whole = (rung.plan() for rung in read.ladder())
    assert (half.n_cells, whole.n_cells, half.units) == (160, 320, SETS)
    with pytest.raises(ConfigError, match=r"but the plan is one of Sets\(size=8"):
        Loader(given.plan, units=cm.Chunks(cells=2))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"kind": "set", "size": 8}, r"Did you mean 'sets'"),
        ({"kind": "sets"}, "sets need `size`"),
        ({"kind": "chunks", "cells": 4, "bye": ["batch"]}, r"unknown key 'bye'. Did you mean 'by'"),
        ("sets", r"expected \{kind: sets"),
    ],
)
def test_units_of_yaml_that_cannot_be_meant_are_refused(units, message):
    with pytest.raises(ConfigError, match=message):
        Mixture.from_dict({"units": units, "components": [{"name": "a", "store": "a.mill"}]})
    with pytest.raises(ConfigError, match="make each class a component with a `proportion` or `repeat`"):
        Mixture([Component("a", "a.mill")], units=SETS, balance={"column": "target"})


def test_a_state_of_other_units_is_refused(mix):
    state = Loader(mix, batch_size=4, units=SETS).state_dict()
    for units in (None, cm.Pairs(CONTROL), cm.Sets(9, by=SETS.by, control=CONTROL, match=["batch"])):
        with pytest.raises(StateMismatchError, match="units"):
            Loader(mix, batch_size=4, units=units).load_state_dict(state)


def test_units_are_values():
    again = cm.Sets(np.int64(8), ("target", "batch"), CONTROL, ("batch",))
    assert again == SETS
    assert hash(again) == hash(SETS)
    assert pickle.loads(pickle.dumps(SETS)) == copy.copy(SETS)
    said = json.loads(json.dumps(cm.Pairs(CONTROL).to_dict()))
    assert said == {"kind": "pairs", "control": CONTROL, "match": [], "unmatched": "refuse"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cm.Sets(0), "size must be a whole number of at least 1, found 0"),
        (lambda: cm.Sets(True), "size must be a whole number"),
        (lambda: cm.Chunks(2.5), "cells must be a whole number"),
        (lambda: cm.Sets(8, by="target"), r"write \['target'\]"),
        (lambda: cm.Sets(8, by=["a", "a"]), "each once"),
        (lambda: cm.Sets(8, by=[1]), "names of columns"),
        (lambda: cm.Sets(8, short="repaet"), "Did you mean 'repeat'|repeat"),
        (lambda: cm.Sets(8, by=["target"], control=CONTROL, match=["batch"]), "may differ in 'batch'"),
        (lambda: cm.Sets(8, by=["batch"], match=["batch"]), "not say what a control is"),
        (lambda: cm.Pairs(None), "which cells are controls"),
        (lambda: cm.Pairs(" "), "control must be a condition"),
        (lambda: cm.Pairs(CONTROL, unmatched="all"), "unmatched must be one of refuse, any, drop"),
    ],
)
def test_units_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_a_plan_cannot_make_is_refused(mix, screens):
    with pytest.raises(ConfigError, match=r"no column 'traget'.*target"):
        Loader(mix, batch_size=4, units=cm.Sets(8, by=["traget"]))
    with pytest.raises(ConfigError, match=r"along.*holds"):
        Loader(mix, batch_size=4, units=cm.Chunks(8, along="target"))
    with pytest.raises(MixtureError, match="largest group of the plan has"):
        Loader(mix, batch_size=4, units=cm.Sets(900, by=["target"], short="drop"))
    with pytest.raises(ConfigError, match="units are fewer than the 3 ranks"):
        Loader(mix, batch_size=2, units=SETS, rank=0, world_size=3)
    balanced = Mixture([Component("a", screens[0], balance=Balance("target"))])
    with pytest.raises(MixtureError, match="balance"):
        Loader(balanced, batch_size=4, units=SETS)
    little = Mixture([Component("a", screens[0], repeat=0.05)])
    with pytest.raises(MixtureError, match="units is no unit"):
        Loader(little, batch_size=4, units=cm.Sets(100))
    single = next(iter(Loader(screens[0], batch_size=4)))
    with pytest.raises(InputError, match="single cells"):
        single.sets(single.cells)
    batch = next(iter(Loader(mix, batch_size=4, units=SETS)))
    with pytest.raises(InputError, match=r"batch.to_dense"):
        batch.sets(batch.genes)
