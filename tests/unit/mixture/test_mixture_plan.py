"""Mixtures over a real store: selections, shares, choices, splits, exclusions, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from cellmill.errors import ConfigError, MixtureError, QueryError
from cellmill.ingest import build
from cellmill.mixture import Component, Exclusion, Mixture, Split, plan_cells
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.select import build_removals
from cellmill.mixture.splitting import Sides, SplitCount, apply_split
from cellmill.store import open_store


def rows_of(plan, component=0, store=0):
    return set(plan.parts[component].cells.rows(store).tolist())


def test_a_component_is_its_where(atlas):
    plan = Mixture([Component("gut", atlas, where="tissue <> 'blood'")]).plan()
    assert rows_of(plan) == set(atlas.select("tissue <> 'blood'").tolist())
    assert plan.n_draws == plan.n_cells == len(atlas.select("tissue <> 'blood'"))
    assert (
        plan.table[0].donors
        == atlas.query("SELECT COUNT(DISTINCT donor_id) n FROM obs WHERE tissue<>'blood'")["n"][0].as_py()
    )


def test_proportions_hold_in_every_batch(atlas):
    mix = Mixture(
        [
            Component("blood", atlas, where="tissue = 'blood'", proportion=0.75),
            Component("gut", atlas, where="tissue <> 'blood'", proportion=0.25),
        ]
    )
    plan = mix.plan()
    tissue = np.array(atlas.column("tissue").to_pylist())
    for start in range(0, 1200, 40):
        component, _, row, _ = plan.draw(np.arange(start, start + 40), seed=2)
        assert (component == 1).sum() == 10
        assert (tissue[row] != "blood").sum() == 10
    assert plan.table[0].share_obtained == pytest.approx(0.75)
    assert sum(r.draws for r in plan.table) == plan.n_draws == plan.n_cells


def test_repeats_count_whole_and_in_part(atlas):
    plan = Mixture([Component("all", atlas, repeat=2.5)]).plan()
    _, _, row, _ = plan.draw(np.arange(plan.n_draws), seed=0)
    count = np.bincount(row, minlength=atlas.n_cells)
    assert plan.n_draws == 750
    assert sorted(set(count)) == [2, 3]
    assert (count == 3).sum() == 150


def test_a_larger_choice_holds_the_smaller_one(atlas):
    chosen = [rows_of(Mixture([Component("c", atlas, choose=n)], seed=5).plan()) for n in (20, 50, 120)]
    assert [len(c) for c in chosen] == [20, 50, 120]
    assert chosen[0] < chosen[1] < chosen[2]
    other = rows_of(Mixture([Component("c", atlas, choose=50)], seed=6).plan())
    assert other != chosen[1]
    partly = Mixture([Component("c", atlas, repeat=50 / 300)], seed=5).plan()
    _, _, row, _ = partly.draw(np.arange(partly.n_draws))
    assert set(row.tolist()) == chosen[1]  # a fraction of a repeat is the same ladder


def test_a_choice_stays_when_cells_are_added(atlas, gut):
    """The 40 first of the gut cells alone are the 40 first of all gut cells in another store."""
    alone = Mixture([Component("c", gut, choose=40)]).plan()
    within = Mixture([Component("c", atlas, where="dataset = 'gut-c'", choose=40)]).plan()
    assert set(gut.uids(alone.rows())) == set(atlas.uids(within.rows()))


def test_budgets_of_unique_cells(atlas):
    parts = [
        Component("blood", atlas, where="tissue = 'blood'", proportion=0.8),
        Component("gut", atlas, where="tissue <> 'blood'", proportion=0.2),
    ]
    plan = Mixture(parts, cells=50).plan()
    assert [row.cells for row in plan.table] == [40, 10]
    assert rows_of(plan) < rows_of(Mixture(parts, cells=100).plan())
    with pytest.raises(MixtureError, match=r"'blood': cells=1000 at its proportion asks for 800 cells, but it has 200"):
        Mixture(parts, cells=1000).plan()
    assert Mixture([Component("all", atlas)], cells=77).plan().n_cells == 77
    with pytest.raises(MixtureError, match="301 unique cells, but there are 300"):
        Mixture([Component("all", atlas)], cells=301).plan()


def test_draws_set_the_length_of_an_epoch_and_go_on_through_all_cells(atlas):
    plan = Mixture([Component("all", atlas)], draws=120).plan()
    assert plan.n_draws == 120
    _, _, row, epoch = plan.draw(np.arange(300))
    assert sorted(row.tolist()) == list(range(300))
    assert np.bincount(epoch).tolist() == [120, 120, 60]


def test_splits_are_by_donor_disjoint_and_complete(atlas):
    split = Split(by="donor_id", train=0.5, validation=0.25, test=0.25)
    donors = np.array(atlas.column("donor_id").to_pylist())
    seen: set[int] = set()
    for name in ("train", "validation", "test"):
        rows = rows_of(Mixture([Component("c", atlas, split=name)], split=split).plan())
        here = set(donors[sorted(rows)])
        assert not rows & seen
        assert all(set(np.flatnonzero(donors == donor).tolist()) <= rows for donor in here)
        seen |= rows
    assert len(seen) == atlas.n_cells


def test_a_donor_stays_on_its_side_when_others_are_added(atlas, gut):
    split = Split(by="donor_id", train=0.6, validation=0.2, test=0.2)
    alone = Mixture([Component("c", gut)], split=split, seed={"split": 3}).plan()
    within = Mixture([Component("c", atlas, where="dataset = 'gut-c'")], split=split, seed={"split": 3}).plan()
    assert set(gut.uids(alone.rows())) == set(atlas.uids(within.rows()))
    other = Mixture([Component("c", gut)], split=split, seed={"split": 4}).plan()
    assert set(gut.uids(alone.rows())) != set(gut.uids(other.rows()))


def test_with_a_split_components_train_unless_they_say_otherwise(atlas):
    split = Split(train=0.6, validation=0.2, test=0.2)
    mix = Mixture([Component("c", atlas, repeat=3)], split=split)
    assert mix.plan().table[0].split == "train"
    held_out = mix.with_split("validation").plan()
    assert held_out.table[0].split == "validation"
    assert held_out.n_draws == held_out.n_cells
    assert not rows_of(mix.plan()) & rows_of(held_out)
    assert Mixture([Component("c", atlas, split="all")], split=split).plan().n_cells == atlas.n_cells


def test_a_split_that_gets_no_donor_is_said_and_an_empty_component_refused(atlas):
    few = "donor_id IN ('gut-c-donor01', 'gut-c-donor02')"
    split = Split(train=0.98, validation=0.01, test=0.01)
    plan = Mixture([Component("c", atlas, where=few)], split=split).plan()
    assert any("split 'test' (1%) holds none of the 2 values of donor_id" in w for w in plan.warnings)
    with pytest.raises(MixtureError, match="'c' has no cells: 20 cells selected, 0 of them in split 'test'"):
        Mixture([Component("c", atlas, where=few, split="test")], split=split).plan()
    by_cell = Mixture([Component("c", atlas)], split=Split(by="cell")).plan()
    assert "within donor" in by_cell.warnings[0]


def test_a_component_without_cells_is_told_with_its_store_condition_split_and_what_each_step_left(atlas, gut):
    nowhere = Component("c", atlas, where="tissue = 'moon'")
    with pytest.raises(MixtureError) as refused:
        Mixture([nowhere], split=Split(), exclude=[Exclusion(gut)]).plan()
    said = str(refused.value)
    assert "'c' has no cells: 0 cells selected, 0 of them in split 'train' by donor_id, 0 after exclusions" in said
    assert f"(store: {atlas.location}; `where`: tissue = 'moon')" in said
    assert f"cellmill query {atlas.location} " in said
    with pytest.raises(MixtureError, match=r"100 cells selected, 0 after exclusions \(store: .*no `where`\)\. Widen"):
        Mixture([Component("c", gut)], exclude=[Exclusion(gut)]).plan()


def test_exclusions_say_which_rule_removed_what(atlas, gut):
    everything = Component("all", atlas)
    by_uid = Mixture([everything], exclude=[Exclusion(gut)]).plan()
    assert rows_of(by_uid) == set(atlas.select("dataset <> 'gut-c'").tolist())
    assert by_uid.table[0].excluded == {"uid": 100, "fingerprint": 0}
    one = Exclusion(gut, where="cell_type = 'B cell'", by=("uid", "donor_id"))
    plan = Mixture([everything], exclude=[one]).plan()
    donors = set(gut.column("donor_id", gut.select("cell_type = 'B cell'")).to_pylist())
    expected = {i for i, d in enumerate(atlas.column("donor_id").to_pylist()) if d not in donors}
    n_cells = len(gut.select("cell_type = 'B cell'"))
    assert rows_of(plan) == expected
    assert plan.table[0].excluded == {"uid": n_cells, "donor_id": 300 - len(expected) - n_cells}
    assert "excluded by donor_id" in str(plan)
    assert plan.stores == (atlas,)  # the store that is only excluded is no part of the plan


def test_cells_of_few_counts_are_no_leaks_by_fingerprint(tmp_path, tiny_h5ad):
    rng = np.random.default_rng(0)
    small = np.zeros((4, 30), dtype=int)  # two empty cells, two of a single molecule
    small[2:, 3] = 1
    train = np.vstack([small, rng.poisson(4, (6, 30))])
    held = np.vstack([small, train[4:6], rng.poisson(4, (4, 30))])
    stores = [
        build(tmp_path / f"{name}.mill", [tiny_h5ad(name, counts=counts).path], vocabulary="union")
        for name, counts in (("train", train), ("held", held))
    ]
    exclusion = Exclusion(stores[1], by=("fingerprint",))
    plan = Mixture([Component("c", stores[0])], exclude=[exclusion]).plan()
    assert plan.rows().tolist() == [0, 1, 2, 3, 6, 7, 8, 9]
    assert plan.table[0].excluded == {"fingerprint": 2}
    assert any("4 of the 10 registered cells" in w and "fewer than 50 counts" in w for w in plan.warnings)


def test_duplicates_are_removed_keeping_the_first(atlas, gut):
    parts = [Component("all", atlas), Component("again", gut)]
    plan = Mixture([*parts, Component("new", atlas, where="tissue = 'blood'")]).plan()
    assert any("'all' and 'new' share" in w for w in plan.warnings)
    with pytest.raises(MixtureError, match=r"'again' has no cells: 100 cells selected, 0 without duplicates"):
        Mixture(parts, dedupe=True).plan()
    kept = Mixture([Component("again", gut), Component("all", atlas)], dedupe=True).plan()
    assert [row.cells for row in kept.table] == [100, 200]
    assert [row.duplicates_removed for row in kept.table] == [0, 100]


def test_the_hash_follows_contents_and_not_paths(atlas, tmp_path):
    shutil.copytree(atlas.path, tmp_path / "elsewhere.mill")
    copy = open_store(tmp_path / "elsewhere.mill")
    where = "tissue <> 'blood'"
    one = Mixture([Component("c", atlas, where=where)]).plan()
    assert one.hash == Mixture([Component("c", copy, where=where + " AND 1 = 1")]).plan().hash
    assert one.hash != Mixture([Component("c", atlas)]).plan().hash
    assert one.hash != Mixture([Component("d", atlas, where=where)]).plan().hash
    contiguous = [Mixture([Component("c", atlas, where=f"dataset = '{d}'")]).plan() for d in ("blood-a", "blood-b")]
    assert contiguous[0].n_cells == contiguous[1].n_cells
    assert contiguous[0].hash != contiguous[1].hash
    assert one.hash != Mixture([Component("c", atlas, where=where, repeat=2)]).plan().hash
    assert one.hash != Mixture([Component("c", atlas, where=where)], draws=7).plan().hash
    assert one.hash != Mixture([Component("c", atlas, where=where)], seed=1).plan().hash


def test_a_plan_survives_pickling_and_prints_json(atlas):
    plan = Mixture([Component("c", atlas, where="tissue <> 'blood'")], name="m").plan()
    again = pickle.loads(pickle.dumps(plan))
    assert again.hash == plan.hash
    assert np.array_equal(again.draw(np.arange(50))[2], plan.draw(np.arange(50))[2])
    said = json.loads(plan.to_json())
    assert said["components"][0]["cells"] == plan.n_cells
    assert said["hash"] == plan.hash
    assert "plan m: repeat" in str(plan)


def test_kinds_do_not_mix(atlas):
    with pytest.raises(MixtureError, match="a: proportion, b: repeat"):
        Mixture([Component("a", atlas, proportion=0.5), Component("b", atlas, repeat=1)])
    with pytest.raises(ConfigError, match="give one of"):
        Component("a", atlas, proportion=0.5, repeat=2)
    with pytest.raises(MixtureError, match=r"add up to 0\.9"):
        Mixture([Component("a", atlas, proportion=0.5), Component("b", atlas, proportion=0.4)])
    with pytest.raises(MixtureError, match="'b': no `choose`"):
        Mixture([Component("a", atlas, choose=5), Component("b", atlas)])
    with pytest.raises(MixtureError, match=r"choose asks for 301 cells, but it has\s+300"):
        Mixture([Component("a", atlas, choose=301)]).plan()


def test_what_cannot_be_meant_is_refused(atlas):
    with pytest.raises(ConfigError, match="comes twice"):
        Mixture([Component("a", atlas), Component("a", atlas)])
    with pytest.raises(ConfigError, match="names a split, but the mixture has none"):
        Mixture([Component("a", atlas, split="test")])
    with pytest.raises(ConfigError, match="Did you mean 'validation'"):
        Component("a", atlas, split="valdation")
    with pytest.raises(ConfigError, match=r"Did you mean 'donor_id'"):
        Mixture([Component("a", atlas)], split=Split(by="donor")).plan()
    with pytest.raises(QueryError) as caught:
        Mixture([Component("liver", atlas, where="tisue = 'liver'")]).plan()
    assert "in component 'liver'" in caught.value.__notes__
    with pytest.raises(ConfigError, match=r"add up to 1\.1"):
        Split(train=0.9, validation=0.1, test=0.1)
    with pytest.raises(ConfigError, match="seed 'order'"):
        Mixture([Component("a", atlas)], seed={"order": -1})


def test_yaml_says_the_same_as_python(atlas, tmp_path):
    shutil.copytree(atlas.path, tmp_path / "atlas.mill")
    text = """
    seed: {data: 1, split: 2}
    dedupe: true
    split: {by: donor_id, train: 0.7, test: 0.3}
    exclude:
      - {store: atlas.mill, where: "cell_type = 'B cell'", by: [uid]}
    components:
      - {name: blood, store: atlas.mill, where: "tissue = 'blood'", proportion: 0.75}
      - {name: gut, store: [atlas.mill], where: "tissue <> 'blood'", proportion: 0.25}
    """
    (tmp_path / "two.yaml").write_text(text)
    mix = Mixture.from_yaml(tmp_path / "two.yaml")
    assert mix.name == "two"
    assert mix.split == Split(train=0.7, validation=0.0, test=0.3)
    same = Mixture(
        [
            Component("blood", atlas, where="tissue = 'blood'", proportion=0.75),
            Component("gut", atlas, where="tissue <> 'blood'", proportion=0.25),
        ],
        seed={"data": 1, "split": 2},
        dedupe=True,
        split=Split(train=0.7, validation=0.0, test=0.3),
        exclude=[Exclusion(atlas, where="cell_type = 'B cell'", by=("uid",))],
    )
    assert mix.plan().hash == same.plan().hash


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"components": [{"name": "a", "store": "x", "were": "1"}]},
            r"component 1: unknown key 'were'. Did you mean 'where'",
        ),
        ({"component": []}, "Did you mean 'components'"),
        ({"components": []}, "needs at least one"),
        ({"components": [{"store": "x"}]}, "`name` is missing"),
        ({"components": "a"}, "expected a list"),
        ({"components": [{"name": "a", "store": "x"}], "split": {"bye": "donor_id"}}, "Did you mean 'by'"),
        ({"components": [{"name": "a", "store": "x"}], "seed": {"oder": 1}}, "Did you mean 'order'"),
        ({"components": [{"name": "a", "store": "x"}], "exclude": [{"stores": "y"}]}, "Did you mean 'store'"),
        ({"components": [{"name": "a", "store": "x", "repeat": 0}]}, "above 0"),
    ],
)
def test_unknown_keys_name_the_nearest(content, message):
    with pytest.raises(ConfigError, match=message):
        Mixture.from_dict(content)


def test_a_fractional_repeat_takes_turns(atlas):
    plan = Mixture([Component("half", atlas, repeat=0.5)]).plan()
    rows = plan.draw(np.arange(4 * plan.n_draws))[2].reshape(4, -1)
    assert plan.n_draws == 150
    assert sorted(rows[:2].ravel()) == sorted(rows[2:].ravel()) == list(range(300))
    plan = Mixture([Component("more", atlas, repeat=1.7)]).plan()
    for epochs in range(1, 6):
        count = np.bincount(plan.draw(np.arange(epochs * plan.n_draws))[2])
        assert count.max() - count.min() <= 1


def test_an_exclusion_that_registers_nothing_is_refused(atlas):
    with pytest.raises(MixtureError, match=r"meets .*nope.*, so the exclusion would protect"):
        Mixture([Component("all", atlas)], exclude=[Exclusion(atlas, where="tissue = 'nope'")]).plan()


class Cohort:
    """A store as `select` sees it: uids and one column, `donor_id`."""

    path = "cohort.mill"
    obs = SimpleNamespace(columns=("donor_id",))

    def __init__(self, donors):
        self.donors = pa.array(donors, pa.string())
        self.n_cells = len(donors)

    def column(self, name, rows):
        assert name == "donor_id"
        return self.donors.take(pa.array(rows))

    def uids(self, rows):
        return np.asarray(rows, dtype=np.uint64)

    def select(self, where):
        del where
        return np.arange(self.n_cells)


def test_a_rule_whose_column_is_null_for_all_registered_cells_is_said():
    rules, warnings = build_removals([(Exclusion("x", by="donor_id"), Cohort([None, None]))])
    assert len(rules) == 1
    assert "none of the 2 registered cells of cohort.mill has a donor_id" in warnings[0]
    assert not build_removals([(Exclusion("x", by="donor_id"), Cohort([None, "d"]))])[1]


def test_cells_without_a_donor_fall_one_by_one_on_all_sides():
    store = Cohort([None] * 400 + ["d1"] * 50)
    cells = Cells((Segment.of(0, range(450)),))
    split, found, sides = Split(train=0.5, validation=0.25, test=0.25), SplitCount({}), []
    for name in ("train", "validation", "test"):
        rows = apply_split(cells, Sides(split, [store], seed=0), name, found=found).rows(0)
        sides.append(rows[rows < 400])
        assert np.count_nonzero(rows >= 400) in (0, 50)
    assert sorted(np.concatenate(sides).tolist()) == list(range(400))
    assert [abs(len(side) / 400 - share) < 0.1 for side, share in zip(sides, split.shares, strict=True)] == [True] * 3
    assert found.n_null == 3 * 400


def test_one_store_under_two_names_is_one_store(atlas):
    other = atlas.path.parent / ".." / atlas.path.parent.name / atlas.path.name
    twice = Mixture([Component("all", [atlas, str(atlas.path), other])]).plan()
    assert (twice.n_cells, len(twice.stores)) == (300, 1)
    for name in (str(atlas.path), other):
        warnings = Mixture([Component("a", atlas), Component("b", name)]).plan().warnings
        assert any("'a' and 'b' share 300 cells" in w for w in warnings)


def test_the_same_cells_in_two_stores_are_noticed(atlas, gut):
    apart = Mixture([Component("a", atlas), Component("b", gut)]).plan()
    assert any("'a' and 'b' share 100 cells" in w for w in apart.warnings)
    within = Mixture([Component("a", [atlas, gut])]).plan()
    assert any("'a' holds 100 cells more than once" in w for w in within.warnings)
    assert not Mixture([Component("a", atlas, where="dataset <> 'gut-c'"), Component("b", gut)]).plan().warnings


def test_overlaps_are_those_of_the_chosen_cells(atlas):
    blood = "tissue = 'blood'"
    parts = [Component("few", atlas, where=blood, choose=5), Component("all", atlas, choose=20)]
    plan = Mixture(parts, seed=3).plan()
    shared = len(rows_of(plan, 0) & rows_of(plan, 1))
    assert 0 < shared <= 5
    assert plan.warnings == (
        f"'few' and 'all' share {shared} cells, which count in both; `dedupe: true` keeps the first",
    )


def test_duplicates_under_other_donors_do_not_lie_in_two_splits(tmp_path, tiny_h5ad):
    half = np.random.default_rng(0).poisson(2, (40, 30))
    half[:, 0] = np.arange(1, 41)
    tiny_h5ad("twins", counts=np.vstack([half, half[:2], half[:38]]))  # twins have other donors
    store = build(tmp_path / "twins.mill", [tmp_path / "twins.h5ad"], vocabulary="union")
    split = Split(train=0.5, validation=0.5, test=0)
    for seed in range(20):
        mix = Mixture([Component("c", store)], split=split, seed=seed, dedupe=True)
        try:
            plans = [mix.plan(), mix.with_split("validation").plan()]
        except MixtureError:  # all four donors on one side
            continue
        prints = [set(store.column("fingerprint", plan.rows()).to_pylist()) for plan in plans]
        assert not prints[0] & prints[1]
        assert len(prints[0] | prints[1]) == 40
        break


def test_a_share_that_the_pattern_cannot_hold_is_said(atlas):
    parts = [Component("rare", atlas, proportion=0.00001), Component("rest", atlas, proportion=0.99999)]
    plan = Mixture(parts, draws=10_000_000).plan()
    assert any("'rare' gets 153 draws, where its share of 1e-05 means 100" in w for w in plan.warnings)
    assert "0.001%" in str(plan)
    assert "0.00153%" in str(plan)
    fair = [Component("a", atlas, proportion=0.3), Component("b", atlas, proportion=0.7)]
    assert not any("gets" in w for w in Mixture(fair, draws=101).plan().warnings)


def test_the_hash_holds_the_order_seed_and_no_seed_that_changes_nothing(atlas):
    def hash_of(**seed):
        return Mixture([Component("c", atlas)], seed=seed).plan().hash

    assert hash_of() == hash_of(data=1) == hash_of(split=1)
    assert hash_of() != hash_of(order=1)


@pytest.mark.parametrize("amount", [{"repeat": 1}, {"choose": 200}, {"proportion": 1.0}])
def test_the_order_seed_of_a_mixture_changes_its_order(atlas, amount):
    rows = [
        Mixture([Component("c", atlas, **amount)], seed={"order": seed}).plan().draw(np.arange(100))[2]
        for seed in (0, 1)
    ]
    assert not np.array_equal(*rows)


def test_each_component_has_an_order_of_its_own(atlas):
    plan = Mixture([Component(name, atlas, proportion=0.5) for name in "ab"]).plan()
    component, _, row, _ = plan.draw(np.arange(200))
    assert not np.array_equal(row[component == 0], row[component == 1])


def test_another_split_keeps_the_exclusions(atlas, gut):
    mix = Mixture([Component("c", atlas)], split=Split(train=0.5, validation=0.5, test=0), exclude=[Exclusion(gut)])
    held_out = rows_of(mix.with_split("validation").plan())
    assert held_out
    assert not held_out & set(atlas.select("dataset = 'gut-c'").tolist())


def test_plans_of_given_rows_take_only_rows_of_the_store(atlas):
    for rows in ([0, 300], [-1, 5], range(290, 310)):
        with pytest.raises(MixtureError, match=r"lie in 0\.\.299, found"):
            plan_cells({"a": [(atlas, rows)]})
    with pytest.raises(MixtureError, match=r"np\.flatnonzero"):
        plan_cells({"a": [(atlas, np.arange(300) < 5)]})
    assert plan_cells({"a": [(atlas, range(299, -1, -3))]}).n_cells == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": [{"name": "a", "store": 5}]}, "`store` must be the path of a store"),
        ({"components": [{"name": "a", "store": ["x", None]}]}, "`store` must be the path of a store"),
        ({"components": [{"name": "a", "store": "x", "where": 5}]}, "`where` must be an SQL condition"),
        ({"components": [{"name": "a", "store": "x", "where": True}]}, "`where` must be an SQL condition"),
        ({"split": {"by": 5}}, "`by` must name a column"),
        ({"exclude": [{"store": "x", "by": [5]}]}, "each rule in `by` is a name"),
        ({"exclude": [{"store": "x", "by": 5}]}, "`by` must be a list of rules"),
        ({"exclude": [{"store": 5}]}, "exclude: `store` must be"),
    ],
)
def test_values_of_another_type_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Mixture.from_dict({"components": [{"name": "a", "store": "x"}], **change})


def test_a_file_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "mix.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="not a text in UTF-8"):
        Mixture.from_yaml(tmp_path / "mix.yaml")


def test_a_row_in_two_lists_of_one_component_is_refused(atlas):
    assert plan_cells({"c": [(atlas, range(5)), (atlas, [9, 11])]}).n_cells == 7
    with pytest.raises(MixtureError, match="'c': a row id comes twice"):
        plan_cells({"c": [(atlas, [3, 8, 20]), (atlas, range(8, 12))]})
