"""What a build takes, refuses, reports and leaves behind."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from cellmill import events
from cellmill.errors import (
    ConfigError,
    DiskSpaceError,
    GeneMatchError,
    InputError,
    NotFoundError,
    NotRawCountsError,
    StoreExistsError,
)
from cellmill.genes import Vocabulary
from cellmill.ingest import build, finish, run, shards
from cellmill.store import open_store
from cellmill.store.staging import Staging


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".h5ad"))


@pytest.mark.parametrize(
    ("value", "why"),
    [(1.5, "not whole"), (-1.0, "negative"), (np.nan, "not finite"), (np.inf, "not finite"), (2.0**33, "above")],
)
def test_one_bad_value_anywhere_refuses_the_file_and_leaves_nothing(tmp_path, tiny_h5ad, value, why):
    counts = np.ones((5000, 10))
    counts[4200, 7] = value  # beyond the windows that the plan looks at
    file = tiny_h5ad("bad", counts=counts, dtype="float64")
    with pytest.raises(NotRawCountsError, match=r"X .*Cell 'cell4200' \(row 4200\), gene 'ENSG00000000007'") as caught:
        build(tmp_path / "s.mill", [file.path], vocabulary="union", block_cells=512)
    assert why in str(caught.value)
    assert leftovers(tmp_path) == []


def test_the_refusal_says_where_raw_counts_are(tmp_path, tiny_h5ad):
    counts = np.random.default_rng(0).poisson(1, (50, 20))
    file = tiny_h5ad("norm", counts=np.log1p(counts), layers={"counts": counts, "scaled": counts - 0.5})
    with pytest.raises(NotRawCountsError, match=r"layers\['counts'\]: pass --counts layers/counts") as caught:
        build(tmp_path / "s.mill", [file.path], vocabulary="union")
    assert "scaled" not in str(caught.value)
    assert leftovers(tmp_path) == []
    for choice in ("layers/counts", "auto"):
        store = build(tmp_path / f"{choice[:4]}.mill", [file.path], vocabulary="union", counts=choice)
        assert store.read(np.arange(50)).sum() == counts.sum()


def test_two_raw_matrices_that_differ_are_asked_about(tmp_path, tiny_h5ad):
    counts = np.random.default_rng(0).poisson(1, (50, 20))
    file = tiny_h5ad("two", counts=counts, layers={"spliced": counts // 2})
    with pytest.raises(ConfigError, match=r"--counts X"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union", counts="auto")


def test_skip_bad_builds_the_rest_and_lists_what_was_skipped(tmp_path, tiny_h5ad):
    good = tiny_h5ad("good")
    early = tiny_h5ad("early", counts=np.full((20, 40), 0.5))
    late = np.ones((5000, 40))
    late[1500, 3] = 0.25  # between the windows that a plan looks at
    late_file = tiny_h5ad("late", counts=late, genes=[f"ENSG{i:011d}" for i in range(3, 43)])
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(good.path.read_bytes()[:1500])
    last = tiny_h5ad("z_last", seed=5)
    inputs = [early.path, good.path, late_file.path, broken, last.path]
    told = []
    with events.listening(told.append):
        store = build(tmp_path / "s.mill", inputs, vocabulary="union", skip_bad=True, shard_cells=1000, block_cells=500)
    assert store.n_cells == 120
    assert [source.name for source in store.manifest.sources] == ["good", "z_last"]
    report = json.loads((store.path / "reports" / "build.json").read_text())
    assert {s["path"].rsplit("/", 1)[1] for s in report["skipped"]} == {"early.h5ad", "late.h5ad", "broken.h5ad"}
    only_late = [f"ENSG{i:011d}" for i in range(40, 43)]  # places of genes were settled before it failed
    assert report["genes_of_skipped_alone"] == only_late and set(only_late) < set(store.gene_ids)
    (message,) = [event.message for event in told if event.message and "no other has measured them" in event.message]
    assert (
        f"3 genes of the store are of inputs that were left out, and no other has measured them: {only_late[0]}"
        in message
    )
    assert store.verify().ok
    assert leftovers(tmp_path) == ["s.mill"]


def test_skip_bad_leaves_out_folders_and_files_in_which_no_input_is_found(tmp_path, tiny_h5ad):
    (tmp_path / "cells.zarr").mkdir()
    (tmp_path / "cells.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("x")
    (tmp_path / "notes.txt").write_text("nothing here")
    bad = [tmp_path / name for name in ("cells.zarr", "notes", "notes.txt")]
    for one in bad:
        with pytest.raises(InputError, match=r"zarr store|no input in this folder|text, beginning"):
            build(tmp_path / "s.mill", [one, tiny_h5ad("good").path], vocabulary="union")
    store = build(tmp_path / "s.mill", [*bad, tiny_h5ad("good").path], vocabulary="union", skip_bad=True)
    assert [source.name for source in store.manifest.sources] == ["good"]
    skipped = json.loads((store.path / "reports" / "build.json").read_text())["skipped"]
    assert [one["path"] for one in skipped] == [str(path) for path in bad]
    assert "is a zarr store of another kind" in skipped[0]["reason"]
    with pytest.raises(InputError, match="no input is left"):
        build(tmp_path / "t.mill", bad, vocabulary="union", skip_bad=True)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"min_match": 60}, r"from 0 to 1; found 60; for 60 % give 0\.6"),
        ({"min_match": -0.1}, "from 0 to 1; found -0.1"),
        ({"min_match": float("nan")}, "found nan"),
        ({"vocabulary": "humna"}, "Did you mean 'human'"),
        ({"vocabulary": "no/words.json"}, "nor a file"),
        ({"rename": {"donor": ""}}, "a column name is empty"),
        ({"rename": {"donor": "cell"}}, r"'donor' cannot be called 'cell', .*dataset.*such as 'source_cell'"),
        ({"rename": {"depth": "Total_Counts"}}, "'depth' cannot be called 'Total_Counts'"),
        ({"rename": {"at": "row"}}, "'at' cannot be called 'row'"),
        ({"format": "h5da"}, "Did you mean 'h5ad'"),
    ],
    ids=str,
)
def test_policy_that_cannot_be_meant_is_refused_before_a_file_is_read(policy, said, tmp_path):
    unreadable = tmp_path / "never_opened.h5ad"  # opened, it would be refused as empty
    unreadable.touch()
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=said):
            build(tmp_path / "s.mill", [unreadable], skip_bad=skip_bad, **policy)


def test_with_skip_bad_the_species_of_most_cells_decides(tmp_path, tiny_h5ad):
    human, mouse = (list(Vocabulary.load(s).ids[:40]) for s in ("human", "mouse"))
    files = [tiny_h5ad("a_mouse", n_cells=20, genes=mouse).path, tiny_h5ad("b_human", genes=human).path]
    with pytest.raises(GeneMatchError, match="more than one species"):
        build(tmp_path / "s.mill", files)
    store = build(tmp_path / "s.mill", files, skip_bad=True)
    assert [source.name for source in store.manifest.sources] == ["b_human"]
    skipped = json.loads((store.path / "reports" / "build.json").read_text())["skipped"]
    assert "--vocabulary mouse" in skipped[0]["reason"]


def test_an_error_about_all_inputs_tells_of_bad_ones_and_how_many_there_are(tmp_path, tiny_h5ad):
    human, mouse = (list(Vocabulary.load(s).ids[:40]) for s in ("human", "mouse"))
    files = [tiny_h5ad(f"human{i}", genes=human, seed=i).path for i in range(5)]
    files += [tiny_h5ad("a_mouse", genes=mouse).path, tiny_h5ad("bad", counts=np.full((20, 40), 0.5)).path]
    with pytest.raises(
        GeneMatchError, match=r"human0.h5ad, human1.h5ad, human2.h5ad and 2 more; mouse: a_mouse"
    ) as told:
        build(tmp_path / "s.mill", files)
    assert [note for note in told.value.__notes__ if "bad.h5ad" in note and "0.5" in note]


@pytest.mark.parametrize("n_others", [0, 1])
def test_only_where_there_are_others_they_are_said_to_be_worked_on(n_others, tmp_path, tiny_h5ad):
    said = []
    bad = tiny_h5ad("bad", counts=np.full((20, 40), 0.5)).path
    with events.listening(lambda event: said.append(event.message)), pytest.raises(InputError):
        build(tmp_path / "s.mill", [bad, *(tiny_h5ad("sound").path for _ in range(n_others))], vocabulary="union")
    told = next(line for line in said if "cannot use" in line)
    assert ("the others are worked on" in told) == bool(n_others)


def test_inputs_that_share_no_gene_are_warned_of(tmp_path, tiny_h5ad):
    human, mouse = (list(Vocabulary.load(s).ids[:40]) for s in ("human", "mouse"))
    files = [tiny_h5ad("one", genes=human).path, tiny_h5ad("two", genes=[*human[:39], "x"]).path]
    for more, strangers in (([], []), ([tiny_h5ad("mouse", genes=mouse).path], ["mouse.h5ad"])):
        said = []
        with events.listening(lambda event, said=said: said.append(event.message)):
            build(tmp_path / "s.mill", files + more, vocabulary="union", overwrite=True)
        assert [line.split()[1] for line in said if "shares no gene" in line] == strangers


def test_nothing_left_to_build_is_an_error(tmp_path, tiny_h5ad):
    late = np.ones((5000, 40))
    late[4500, 3] = 0.25
    for name, counts in (("early", np.full((20, 40), 0.5)), ("late", late)):
        with pytest.raises(InputError, match="no input is left"):
            build(tmp_path / "s.mill", [tiny_h5ad(name, counts=counts).path], vocabulary="union", skip_bad=True)
    assert leftovers(tmp_path) == []


def test_an_existing_store_is_not_touched_unless_asked(tmp_path, tiny_h5ad):
    first, second = tiny_h5ad("a"), tiny_h5ad("b", n_cells=30)
    build(tmp_path / "s.mill", [first.path], vocabulary="union")
    with pytest.raises(StoreExistsError, match="--overwrite"):
        build(tmp_path / "s.mill", [second.path], vocabulary="union")
    assert open_store(tmp_path / "s.mill").n_cells == 60
    bad = tiny_h5ad("bad", counts=np.full((20, 40), 0.5))
    with pytest.raises(NotRawCountsError):
        build(tmp_path / "s.mill", [bad.path], vocabulary="union", overwrite=True)
    assert open_store(tmp_path / "s.mill").n_cells == 60
    assert build(tmp_path / "s.mill", [second.path], vocabulary="union", overwrite=True).n_cells == 30
    assert leftovers(tmp_path) == ["s.mill"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path, tiny_h5ad):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(StoreExistsError, match="not a store"):
        build(tmp_path / "thesis", [tiny_h5ad().path], vocabulary="union", overwrite=True)


def test_missing_inputs_are_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"nowhere\.h5ad"):
        build(tmp_path / "s.mill", [tmp_path / "nowhere.h5ad"])


def test_genes_that_match_nothing_are_refused_with_examples(tmp_path, tiny_h5ad):
    file = tiny_h5ad(genes=[f"weird{i}" for i in range(40)])
    with pytest.raises(GeneMatchError, match="weird0"):
        build(tmp_path / "s.mill", [file.path], vocabulary="human")
    with pytest.raises(GeneMatchError, match="union"):
        build(tmp_path / "s.mill", [file.path])


def test_duplicated_genes_are_summed_and_listed(tmp_path, tiny_h5ad):
    counts = np.array([[1, 2, 3], [0, 5, 0], [4, 0, 4]])
    file = tiny_h5ad(counts=counts, genes=["G1", "G2", "G1"])
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    np.testing.assert_array_equal(store.read([0, 1, 2], genes=["G1", "G2"]).toarray(), [[4, 2], [0, 5], [8, 0]])
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert report["genes"]["duplicates"][0]["gene_id"] == "G1"


def test_entries_that_repeat_a_cell_and_gene_are_summed_and_counted(tmp_path, tiny_h5ad):
    file = tiny_h5ad(counts=np.array([[1, 2, 3], [4, 5, 6]]))
    with h5py.File(file.path, "r+") as h5:
        del h5["X/indices"]
        h5["X/indices"] = np.array([0, 0, 2, 1, 1, 1])
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    np.testing.assert_array_equal(store.read([0, 1], genes=file.genes).toarray(), [[3, 0, 3], [0, 15, 0]])
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert report["entries_merged"] == 3


def test_a_sum_of_duplicates_beyond_uint32_is_refused(tmp_path, tiny_h5ad):
    file = tiny_h5ad(counts=np.array([[2.0**31, 1, 2.0**31]]), genes=["G1", "G2", "G1"], dtype="float64")
    with pytest.raises(InputError, match=r"2\^32"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union")


def test_columns_with_the_stores_names_are_kept_under_another(tmp_path, tiny_h5ad):
    file = tiny_h5ad(n_cells=4, obs={"total_counts": list("abcd"), "Celltype": list("TTBB")})
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union", rename={"Celltype": "cell_type"})
    assert store.column("source_total_counts").to_pylist() == list("abcd")
    assert store.column("cell_type").to_pylist() == list("TTBB")
    assert store.column("total_counts").to_pylist() == file.counts.sum(1).ravel().tolist()[0]
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert any("total_counts" in note for note in report["notes"])


def test_renaming_a_column_that_is_not_there_names_the_nearest(tmp_path, tiny_h5ad):
    with pytest.raises(ConfigError, match="Did you mean 'tissue'"):
        build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union", rename={"tisue": "organ"})


def test_genes_are_stored_by_detection_rate_and_the_rates_are_exact(tmp_path, tiny_h5ad):
    file = tiny_h5ad(n_cells=500)
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union", block_cells=100)
    rates = store.genes.column("detection_rate").to_numpy()
    assert (np.diff(rates) <= 0).all()
    expected = (file.counts > 0).mean(0)
    where = {gene: i for i, gene in enumerate(file.genes)}
    np.testing.assert_allclose(rates, np.asarray(expected).ravel()[[where[g] for g in store.gene_ids]])


def test_files_of_the_same_name_get_names_of_their_own(tmp_path, tiny_h5ad):
    paths = []
    for donor in ("d1", "d2"):
        (tmp_path / donor).mkdir()
        paths.append(tiny_h5ad("counts", seed=len(paths)).path.rename(tmp_path / donor / "counts.h5ad"))
    store = build(tmp_path / "s.mill", paths, vocabulary="union")
    assert [source.name for source in store.manifest.sources] == ["d1_counts", "d2_counts"]


def test_no_room_is_found_out_before_starting(tmp_path, tiny_h5ad, monkeypatch):
    monkeypatch.setattr("cellmill.storage.local.free_bytes", lambda path: 1000)
    with pytest.raises(DiskSpaceError, match="needs about"):
        build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union")
    assert leftovers(tmp_path) == []


def test_the_bytes_do_not_depend_on_when_or_how_often_it_is_built(tmp_path, tiny_h5ad):
    file = tiny_h5ad(n_cells=300)
    stores = [build(tmp_path / f"{i}.mill", [file.path], vocabulary="union", threads=1 + i) for i in range(2)]
    assert stores[0].digest == stores[1].digest
    assert (stores[0].path / "manifest.json").read_bytes() == (stores[1].path / "manifest.json").read_bytes()


def test_progress_counts_every_cell(tmp_path, tiny_h5ad):
    seen = []
    with events.listening(seen.append):
        build(tmp_path / "s.mill", [tiny_h5ad(n_cells=100).path], vocabulary="union", block_cells=30)
    done = [e.done for e in seen if e.unit == "cells"]
    assert done == sorted(done)
    assert done[-1] == 100


def test_an_empty_file_is_a_source_without_cells(tmp_path, tiny_h5ad):
    empty = tiny_h5ad("empty", counts=np.zeros((0, 40)))
    store = build(tmp_path / "s.mill", [empty.path, tiny_h5ad("a").path], vocabulary="union")
    assert store.n_cells == 60
    assert [source.n_cells for source in store.manifest.sources] == [0, 60]
    only = build(tmp_path / "e.mill", [empty.path], vocabulary="union")
    assert only.n_cells == 0
    assert only.read([]).shape == (0, only.n_genes)
    assert only.select("total_counts > 3").tolist() == []
    assert only.verify().ok


@pytest.mark.parametrize(
    ("value", "dtype"), [(2.0**32, "float32"), (np.inf, "float16"), (2.0**32, "float64"), (np.nan, "float16")]
)
def test_values_just_beyond_uint32_are_refused_in_every_float(tmp_path, tiny_h5ad, value, dtype):
    counts = np.ones((5, 4))
    counts[2, 1] = value
    with pytest.raises(NotRawCountsError, match="row 2"):
        build(tmp_path / "s.mill", [tiny_h5ad(counts=counts, dtype=dtype).path], vocabulary="union")


def test_the_largest_counts_are_kept_exactly(tmp_path, tiny_h5ad):
    counts = np.array([[2.0**32 - 1, 1], [2.0**32 - 256, 0]])
    store = build(tmp_path / "s.mill", [(f := tiny_h5ad(counts=counts, dtype="float64")).path], vocabulary="union")
    np.testing.assert_array_equal(store.read([0, 1], genes=f.genes).toarray(), counts.astype(np.uint32))


def test_x_that_is_not_there_is_asked_about_and_never_replaced_by_a_layer(tmp_path, tiny_h5ad):
    counts = np.ones((4, 6))
    file = tiny_h5ad(counts=counts, layers={"ambiguous": counts, "spliced": counts})
    with h5py.File(file.path, "r+") as h5:
        del h5["X"]
    with pytest.raises(ConfigError, match="layers/ambiguous, layers/spliced"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union")
    assert build(tmp_path / "s.mill", [file.path], vocabulary="union", counts="layers/spliced").n_cells == 4


def test_columns_that_differ_in_case_alone_are_told_apart_within_a_file_and_joined_across(tmp_path, tiny_h5ad):
    a = tiny_h5ad("a", n_cells=4, obs={"Donor": list("xxxx"), "donor": list("yyyy"), "Cell": list("pqrs")})
    b = tiny_h5ad("b", n_cells=4, obs={"donor": list("zzzz"), "UID": list("klmn")})
    store = build(tmp_path / "s.mill", [a.path, b.path], vocabulary="union")
    assert store.obs.columns[12:] == ["Donor", "donor_2", "source_Cell", "source_UID"]
    assert store.select("donor = 'z'").tolist() == [4, 5, 6, 7]
    assert store.select("donor_2 = 'y'").tolist() == [0, 1, 2, 3]
    assert store.select("cell = 'cell0'").tolist() == [0, 4]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, tiny_h5ad, monkeypatch):
    file = tiny_h5ad("a", n_cells=50)
    real = shards.open_limited

    def open_changed(path, options):
        tiny_h5ad("a", n_cells=50, seed=9)  # the same name, other counts
        return real(path, options)

    monkeypatch.setattr(shards, "open_limited", open_changed)
    with pytest.raises(InputError, match="changed while"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union")
    assert leftovers(tmp_path) == []


def test_what_a_killed_build_left_is_checked_before_it_is_used(tmp_path, tiny_h5ad, monkeypatch):
    file = tiny_h5ad("a", n_cells=100)
    whole = build(tmp_path / "whole.mill", [file.path], vocabulary="union", shard_cells=20, block_cells=20)
    monkeypatch.setattr(finish, "conclude", lambda *args, **kw: (_ for _ in ()).throw(KeyboardInterrupt))
    for damage in ("shard", "journal", "middle"):
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "s.mill", [file.path], vocabulary="union", shard_cells=20, block_cells=20)
        place = Staging.folder_of(tmp_path / "s.mill")
        entries = sorted((place / "journal").glob("*.npz"))
        if damage == "shard":
            (place / "store" / "shards" / "00002.cells").unlink()
        elif damage == "journal":
            path = entries[4]
            path.write_bytes(path.read_bytes()[:50])
        else:
            entries[1].unlink()
    monkeypatch.undo()
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union", shard_cells=20, block_cells=20)
    assert store.digest == whole.digest
    assert store.n_cells == 100


def test_a_store_that_came_first_is_not_replaced(tmp_path, tiny_h5ad, monkeypatch):
    a, b = tiny_h5ad("a"), tiny_h5ad("b", n_cells=20)
    real = run.plan_build

    def plan_slowly(*args, **kw):
        monkeypatch.setattr(run, "plan_build", real)
        build(tmp_path / "s.mill", [a.path], vocabulary="union")
        return real(*args, **kw)

    monkeypatch.setattr(run, "plan_build", plan_slowly)
    with pytest.raises(StoreExistsError):
        build(tmp_path / "s.mill", [b.path], vocabulary="union")
    assert open_store(tmp_path / "s.mill").n_cells == 60
    assert leftovers(tmp_path) == ["s.mill"]


def test_a_link_to_a_store_is_followed_when_it_is_replaced(tmp_path, tiny_h5ad):
    build(tmp_path / "real.mill", [tiny_h5ad("a").path], vocabulary="union")
    (tmp_path / "link.mill").symlink_to(tmp_path / "real.mill")
    build(tmp_path / "link.mill", [tiny_h5ad("b", n_cells=20).path], vocabulary="union", overwrite=True)
    assert (tmp_path / "link.mill").is_symlink()
    assert open_store(tmp_path / "real.mill").n_cells == 20


def test_a_file_without_genes_says_so(tmp_path, tiny_h5ad):
    file = tiny_h5ad(counts=np.zeros((5, 0)))
    with pytest.raises(InputError, match="has no genes"):
        build(tmp_path / "s.mill", [file.path])
