"""How many of which cells: balance by class or weight, even choices, ladders, mixtures that differ from a base."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from cellmill.errors import ConfigError, MixtureError, NotFoundError
from cellmill.ingest import build
from cellmill.mixture import Balance, Component, Exclusion, Mixture, Seeds, Split
from cellmill.store import protect_store


def drawn(plan, n=None):
    _, _, row, _ = plan.draw(np.arange(plan.n_draws if n is None else n), seed=3)
    return row


def by_class(store, rows, column="cell_type"):
    values = np.array(store.column(column).to_pylist())[rows]
    return dict(zip(*(x.tolist() for x in np.unique(values, return_counts=True)), strict=True))


def test_all_classes_alike_and_no_cell_more_often_than_allowed(atlas):
    sizes = by_class(atlas, np.arange(atlas.n_cells))
    plan = Mixture([Component("all", atlas)], balance=Balance("cell_type", temperature=float("inf"))).plan()
    found = by_class(atlas, drawn(plan))
    assert plan.n_draws == 300
    assert max(found.values()) - min(found.values()) <= 1
    assert {row.value: (row.cells, row.draws) for row in plan.table[0].classes} == {
        k: (sizes[k], found[k]) for k in sizes
    }
    capped = Mixture(
        [Component("all", atlas)], balance={"column": "cell_type", "temperature": float("inf"), "max_repeat": 1.5}
    ).plan()
    counts = np.bincount(drawn(capped, 2 * 300), minlength=300)
    assert counts.max() <= 3  # two passes of at most 1.5
    assert capped.table[0].most_repeats <= 1.5
    json.loads(capped.to_json())


def test_classes_hold_in_every_pass_with_proportions_too(atlas):
    parts = [
        Component(
            "blood", atlas, where="tissue = 'blood'", proportion=0.5, balance={"column": "donor_id", "temperature": 2}
        ),
        Component("gut", atlas, where="tissue <> 'blood'", proportion=0.5),
    ]
    plan = Mixture(parts).plan()
    component, _, row, _ = plan.draw(np.arange(4 * 200), seed=1)
    blood = row[component == 0]
    want = {c.value: c.draws for c in plan.table[0].classes}
    for number in range(2):
        assert by_class(atlas, blood[number * 200 : (number + 1) * 200], "donor_id") == want


def test_weights_come_from_a_mapping_a_table_and_a_column(atlas, tmp_path):
    names = sorted(by_class(atlas, np.arange(300)))
    weights = {name: float(i) for i, name in enumerate(names)}
    given = Mixture([Component("all", atlas)], balance=Balance("cell_type", weights=weights)).plan()
    found = by_class(atlas, drawn(given))
    total = sum(weights.values())
    for name, weight in weights.items():
        assert abs(found.get(name, 0) - 300 * weight / total) <= (1 if weight else 0) + 1
    assert names[0] not in found  # the one of weight 0
    assert any("cells have weight 0" in warning for warning in given.warnings)
    (tmp_path / "w.csv").write_text("cell_type,weight\n" + "".join(f'"{k}",{v}\n' for k, v in weights.items()))
    (tmp_path / "w.tsv").write_text("".join(f"{k}\t{v}\n" for k, v in weights.items()))
    (tmp_path / "w.json").write_text(json.dumps(weights))
    for name in ("w.csv", "w.tsv", "w.json"):
        read = Mixture([Component("all", atlas)], balance=Balance("cell_type", weights=tmp_path / name)).plan()
        assert read.hash == given.hash
    column = Mixture([Component("all", atlas)], balance=Balance(cell_weights="total_counts")).plan()
    counts = np.bincount(drawn(column), minlength=300)
    w = atlas.column("total_counts").to_numpy()
    assert np.abs(counts - w / w.sum() * 300).max() < 1


@pytest.mark.parametrize(
    ("balance", "said"),
    [
        ({"column": "cell_tipe"}, "Did you mean 'cell_type'"),
        ({"column": "cell_type", "weights": {"B cell": 1}}, "have no weight"),
        ({"column": "cell_type", "weights": {"B cell": -1}}, "0 or more"),
        ({"column": "cell_type", "temperature": 0.5}, "1 or more"),
        ({"column": "cell_type", "cell_weights": "total_counts"}, "one of the two"),
        ({"cell_weights": "cell_type"}, "no numbers"),
        ({"column": "cell_type", "floor": 0.9}, "more than all"),
        ({"column": "cell_type", "max_repeat": 0.5}, "1 or more"),
        ({"column": "cell_type", "temprature": 2}, "Did you mean 'temperature'"),
    ],
    ids=str,
)
def test_balances_that_cannot_be_meant_are_refused(atlas, balance, said):
    with pytest.raises((ConfigError, MixtureError), match=said):
        Mixture([Component("all", atlas)], balance=balance).plan()


def test_a_table_of_weights_that_is_none_names_file_and_line(atlas, tmp_path):
    def plan(text):
        (tmp_path / "w.csv").write_text(text)
        return Mixture([Component("all", atlas)], balance=Balance("cell_type", weights=tmp_path / "w.csv")).plan()

    with pytest.raises(ConfigError, match=r"w.csv, line 2: expected a value and a weight"):
        plan("a,1\nb\n")
    with pytest.raises(ConfigError, match=r"w.csv, line 2: 'a' is there twice"):
        plan("a,1\na,2\n")
    with pytest.raises(NotFoundError, match=r"no such table"):
        Mixture([Component("all", atlas)], balance=Balance("cell_type", weights=tmp_path / "none.csv")).plan()


def test_even_choices_are_even_and_nested(atlas):
    sizes = by_class(atlas, np.arange(300))
    before: set[int] = set()
    for n in (6, 25, 100, 299, 300):
        plan = Mixture([Component("all", atlas, choose=n, evenly="cell_type")]).plan()
        rows = set(plan.parts[0].cells.rows(0).tolist())
        assert len(rows) == n
        assert before <= rows
        found = by_class(atlas, sorted(rows))
        open_ones = [found.get(k, 0) for k in sizes if found.get(k, 0) < sizes[k]]
        assert not open_ones or max(found.values()) - min(open_ones) <= 1
        before = rows


def test_ladders_are_nested_shares_of_each_component(atlas):
    mix = Mixture(
        [Component("blood", atlas, where="tissue = 'blood'"), Component("gut", atlas, where="tissue <> 'blood'")]
    )
    rungs = [rung.plan() for rung in mix.ladder()]
    cells = [[set(part.cells.rows(0).tolist()) for part in plan.parts] for plan in rungs]
    assert [[len(c) for c in rung] for rung in cells] == [[2, 1], [20, 10], [50, 25], [100, 50], [200, 100]]
    for smaller, larger in pairwise(cells):
        assert all(a < b for a, b in zip(smaller, larger, strict=True))
    assert Mixture([Component("all", atlas, choose="10%")]).plan().n_cells == 30
    with pytest.raises(ConfigError, match="whole number of cells, or a share"):
        Component("all", atlas, choose="110%")
    with pytest.raises(ConfigError, match="a ladder says how many"):
        Mixture([Component("all", atlas, repeat=2)]).ladder()


BLOOD = "tissue = 'blood'"
GUT = "tissue <> 'blood'"


def test_components_are_added_to_a_base_replace_part_of_it_or_stand_alone(atlas):
    base = Mixture([Component("blood", atlas, where=BLOOD, choose=150)], seed=4)
    alone = set(base.plan().parts[0].cells.rows(0).tolist())
    gut = {"store": atlas, "where": GUT, "choose": 30}
    added = Mixture([Component("gut", **gut)], base=base).plan()
    assert [row.cells for row in added.table] == [150, 30]
    replaced = Mixture([Component("gut", op="replace", **gut)], base=base).plan()
    assert [row.cells for row in replaced.table] == [120, 30]
    assert set(replaced.parts[0].cells.rows(0).tolist()) < alone
    only = Mixture([Component("gut", op="only", **gut)], base=base).plan()
    assert only.names == ("gut",)
    assert only.parts[0].cells.rows(0).tolist() == added.parts[1].cells.rows(0).tolist()  # the seed is the base's
    more = Mixture([Component("gut", atlas, where=GUT, choose=60, op="replace")], base=base).plan()
    assert set(more.parts[0].cells.rows(0).tolist()) < set(replaced.parts[0].cells.rows(0).tolist())
    with pytest.raises(MixtureError, match=r"150 cells are to replace|asks for 150"):
        Mixture([Component("x", atlas, choose=150, op="replace")], base=base).plan()
    with pytest.raises(ConfigError, match="the mixture has none"):
        Mixture([Component("x", atlas, op="replace")])
    with pytest.raises(ConfigError, match="cannot stand beside"):
        Mixture([Component("x", atlas, op="only"), Component("y", atlas)], base=base)


def test_a_budget_of_cells_holds_where_cells_are_replaced(atlas):
    base = Mixture([Component("blood", atlas, where=BLOOD)])
    arm = Mixture([Component("gut", atlas, where=GUT, op="replace")], base=base, cells=120).plan()
    assert arm.n_cells == 120
    assert min(row.cells for row in arm.table) > 0


def test_a_ladder_replaces_as_the_whole_does_and_is_nested(atlas):
    base = Mixture([Component("blood", atlas, where=BLOOD)])
    arm = Mixture([Component("gut", atlas, where=GUT, op="replace")], base=base)
    plans = [rung.plan() for rung in arm.ladder([0.1, 0.5, 1.0])]
    assert [[row.cells for row in plan.table] for plan in plans] == [[10, 10], [50, 50], [100, 100]]
    rows = [set(plan.rows().tolist()) for plan in plans]
    assert rows[0] < rows[1] < rows[2] == set(arm.plan().rows().tolist())
    with pytest.raises(ConfigError, match="so does `cells`"):
        Mixture([Component("blood", atlas)], cells=100).ladder()


def test_a_share_that_is_put_onto_a_base_leaves_it_the_rest(atlas):
    base = Mixture([
        Component("a", atlas, where="dataset = 'blood-a'", proportion=0.75),
        Component("b", atlas, where="dataset = 'blood-b'", proportion=0.25),
    ])  # fmt: skip
    plan = Mixture([Component("gut", atlas, where=GUT, proportion=0.2, op="replace")], base=base).plan()
    assert [round(part.share, 9) for part in plan.parts] == [0.6, 0.2, 0.2]


def test_a_base_may_be_a_file_and_may_not_be_itself(atlas, tmp_path):
    (tmp_path / "base.yaml").write_text(
        f"seed: 7\nsplit: {{by: donor_id, train: 0.8, test: 0.2}}\n"
        f'components: [{{name: blood, store: {atlas.path}, where: "{BLOOD}"}}]\n'
    )
    (tmp_path / "arm.yaml").write_text(
        f'base: base.yaml\ncomponents: [{{name: gut, store: {atlas.path}, where: "{GUT}", choose: 10, op: replace}}]\n'
    )
    mix = Mixture.from_yaml(tmp_path / "arm.yaml")
    assert (mix.seeds.data, mix.split.train, mix.names) == (7, 0.8, ("blood", "gut"))
    base = Mixture.from_yaml(tmp_path / "base.yaml").plan()
    assert mix.plan().n_cells == base.n_cells
    (tmp_path / "a.yaml").write_text(f"base: b.yaml\ncomponents: [{{name: x, store: {atlas.path}}}]\n")
    (tmp_path / "b.yaml").write_text(f"base: a.yaml\ncomponents: [{{name: y, store: {atlas.path}}}]\n")
    with pytest.raises(ConfigError, match="its own base"):
        Mixture.from_yaml(tmp_path / "a.yaml")


def test_strata_are_divided_each_by_the_shares_and_stay_when_cells_are_added(atlas, gut):
    split = Split(train=0.6, validation=0.2, test=0.2, stratify="tissue")
    values = {}
    for name in ("train", "validation", "test"):
        plan = Mixture([Component("all", atlas, split=name)], split=split, seed=1).plan()
        for row in plan.parts[0].cells.rows(0).tolist():
            values.setdefault(atlas.column("donor_id", np.array([row]))[0].as_py(), set()).add(name)
    assert all(len(sides) == 1 for sides in values.values())
    tissue = dict(zip(atlas.column("donor_id").to_pylist(), atlas.column("tissue").to_pylist(), strict=True))
    for one in set(tissue.values()):
        own = [next(iter(values[d])) for d, t in tissue.items() if t == one]
        assert abs(own.count("train") - 0.6 * len(own)) <= 1
        assert abs(own.count("test") - 0.2 * len(own)) <= 1
    # the donors of one stratum alone, in another store: they are cut as they are here
    alone = Mixture([Component("c", gut, split="test")], split=split, seed=1).plan()
    within = Mixture([Component("c", atlas, where=GUT, split="test")], split=split, seed=1).plan()
    assert set(gut.uids(alone.rows())) == set(atlas.uids(within.rows()))


def test_exclusions_and_parts_of_a_mixture_move_no_donor_of_a_stratum(atlas, gut):
    split = Split(train=0.6, validation=0.2, test=0.2, stratify="cell_type")
    mix = Mixture([Component("gut", gut), Component("blood", atlas, where=BLOOD)], split=split, seed=1)
    gut_alone = Mixture([Component("gut", gut)], split=split, seed=1)
    exclusion = Exclusion(atlas, where=BLOOD, by=("uid",))  # of none of the cells of gut
    kept_out = Mixture([Component("gut", gut)], split=split, seed=1, exclude=[exclusion])
    assert kept_out.plan().rows().tolist() == gut_alone.plan().rows().tolist()
    for seed in range(4):
        mix.seeds = Seeds(split=seed)
        whole = mix.with_split("validation").plan()
        part = mix.with_split("validation", only=["gut"]).plan()
        assert part.parts[0].cells.rows(0).tolist() == whole.parts[0].cells.rows(0).tolist()
        assert part.stores == (gut,)


def test_cells_that_are_trained_on_whatever_the_split_are_no_validation_cells(atlas):
    parts = [Component("gut", atlas, where=GUT), Component("blood", atlas, where=BLOOD, split="all")]
    mix = Mixture(parts, split=Split(train=0.6, validation=0.2, test=0.2), seed=1)
    trained = mix.plan()
    held = len(atlas.select(BLOOD)) - len(
        set(mix.with_split("train").plan().rows().tolist()) & set(atlas.select(BLOOD).tolist())
    )
    assert any(f"'blood' is of split 'all', beside components of 'train': {held}" in w for w in trained.warnings)
    validation = mix.with_split("validation")
    assert validation.names == ("gut",)
    assert not set(trained.rows().tolist()) & set(validation.plan().rows().tolist())
    with pytest.raises(ConfigError, match="those of split 'all' have none"):
        Mixture(parts[1:], split=Split()).with_split("test")


def test_leaks_are_refused_when_asked_with_their_counts(atlas, gut):
    def plan(how):
        exclusion = Exclusion(gut, by=("uid", "donor_id"), on_leak=how)
        return Mixture([Component("all", atlas)], exclude=[exclusion]).plan()

    assert plan("remove").n_cells == 200
    with pytest.raises(MixtureError, match=r"'all': 100 by uid.*on_leak: remove"):
        plan("refuse")
    assert (
        Mixture([Component("b", atlas, where=BLOOD)], exclude=[Exclusion(gut, on_leak="refuse")]).plan().n_cells == 200
    )
    with pytest.raises(ConfigError, match="Did you mean 'refuse'"):
        Exclusion(gut, on_leak="refuze")


def test_what_would_surprise_is_said(atlas):
    few = Component("few", atlas, where="row < 3", proportion=0.5)
    plan = Mixture([few, Component("all", atlas, where="row >= 3", proportion=0.5)]).plan()
    assert any("'few': each of its 3 cells comes 50 times" in warning for warning in plan.warnings)
    split = Split(by="cell", train=0.8, validation=0.0, test=0.2)
    said = Mixture([Component("all", atlas)], split=split).plan().warnings
    assert any("donors have cells in train and test" in warning for warning in said)
    assert not any("donors have cells" in w for w in Mixture([Component("all", atlas)], split=Split()).plan().warnings)


def test_the_plan_tells_what_sources_measured_and_which_sets_are_kept_out(tmp_path, tiny_h5ad):
    genes = [f"ENSG{i:011d}" for i in range(40)]
    files = [
        tiny_h5ad("wide", genes=genes, seed=1).path,
        tiny_h5ad("narrow", genes=genes[:10], n_genes=10, seed=2).path,
    ]
    store = build(tmp_path / "s.mill", files, vocabulary="union")
    kept = build(tmp_path / "eval.mill", [tiny_h5ad("kept", genes=genes, seed=3).path], vocabulary="union")
    protect_store(kept.path, "held-out")
    parts = [Component(name, store, where=f"dataset = '{name}'") for name in ("wide", "narrow")]
    plan = Mixture(parts, exclude=[Exclusion(kept, by=("uid",), on_leak="refuse")]).plan()
    assert [row.genes_measured for row in plan.table] == [{"wide": 1.0}, {"narrow": 0.25}]
    assert plan.common_genes == 0.25
    assert any("all sources measured 25 % of the genes (fewest: narrow 25 %" in warning for warning in plan.warnings)
    told = json.loads(plan.to_json())
    assert told["exclusions"][0]["protected_as"] == "held-out"
    assert told["exclusions"][0]["digest"] == kept.digest
    assert "genes measured" in str(plan)
    assert not any("register it anew" in warning for warning in plan.warnings)
    mark = kept.path / "protected.json"
    mark.write_text(mark.read_text().replace(kept.digest, "0" * 32))
    changed = Mixture(parts, exclude=[Exclusion(kept, by=("uid",))]).plan()
    assert any("'held-out' with digest 000000000000" in warning for warning in changed.warnings)
    plan.figure(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    alone = Mixture(parts[:1]).plan()
    assert alone.common_genes == 1.0
    assert not any("no zero" in warning for warning in alone.warnings)
