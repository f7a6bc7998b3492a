"""What a run folder says, what it refuses, and what is done once only."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import cellmill as cm
from cellmill.errors import ConfigError, DivergedError, InputError, NotFoundError, QueryError, StateMismatchError
from cellmill.events import Event, listening
from cellmill.mixture import Component, Mixture, Split, plan_cells
from cellmill.models import load
from cellmill.statistics import hvg
from cellmill.store import Store
from cellmill.train import RunConfig, RunRecord, train_run
from cellmill.train.cells import describe_mixture, resolve_plans


def test_a_run_folder_says_everything_about_the_run(run_of: Any, atlas: Store) -> None:
    record = train_run(run_of(epochs=3))
    folder = record.folder
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        *("cells.parquet", "history.csv", "model", "run.json", "run.yaml", "settings.json")
    ]
    assert RunRecord.read(folder) == record
    assert record.hashes["stores"] == {str(atlas.path.absolute()): atlas.digest}
    assert record.hashes["vocabulary"] == [atlas.vocabulary_hash]
    assert set(record.versions) == {"python", "cellmill", "torch", "lightning", "scvi-tools", "numpy"}
    assert record.seconds > 0
    assert record.peak_memory_bytes > 50e6
    assert sum(record.composition["cell_type"].values()) == record.n_cells
    assert record.epochs == 3


def test_validation_is_measured_as_often_as_asked_and_at_the_end(run_of: Any) -> None:
    history = train_run(run_of(epochs=5, validation_every=2)).history()
    measured = [row["epoch"] for row in history if row["elbo_validation"] is not None]
    assert measured == [1, 3, 4]
    assert all(
        np.isfinite(row["elbo_train"]) and row["elbo_train"] > row["reconstruction_loss_train"] for row in history
    )
    assert history[2]["kl_weight"] == pytest.approx(2 / 400)


def test_the_manifest_names_each_cell_once_and_keeps_donors_apart(run_of: Any, atlas: Store) -> None:
    run = run_of()
    record = train_run(run)
    table = pq.read_table(record.folder / "cells.parquet").to_pandas()
    plan = Mixture.from_dict(run["mixture"]).plan()
    train, validation = (table[table["part"] == part] for part in ("train", "validation"))
    np.testing.assert_array_equal(np.sort(train["row"]), plan.rows(0))
    np.testing.assert_array_equal(train["uid"], atlas.uids(train["row"].to_numpy()))
    donors = [set(atlas.column("donor_id", part["row"].to_numpy()).to_pylist()) for part in (train, validation)]
    assert donors[0]
    assert donors[1]
    assert not donors[0] & donors[1]
    assert (record.n_cells, record.n_validation) == (len(train), len(validation))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run_of: Any) -> None:
    first, again, other = (train_run(run_of(str(i), seed=seed, name="x")) for i, seed in enumerate((4, 4, 5)))
    assert first.hashes["model"] == again.hashes["model"] != other.hashes["model"]


def test_a_finished_run_is_returned_and_not_trained_again(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = train_run(run_of())
    module = importlib.import_module("cellmill.train.run")
    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("trained a second time"))
    assert train_run(run_of()) == record


def test_another_run_in_the_same_folder_is_refused_and_says_what_differs(run_of: Any, atlas: Store) -> None:
    record = train_run(run_of())
    with pytest.raises(StateMismatchError, match=r"lr: there 0\.005, now 0\.01"):
        train_run(run_of(lr=0.01))
    other_cells = {"components": [{"name": "gut", "store": str(atlas.path), "where": "tissue <> 'blood'"}]}
    with pytest.raises(StateMismatchError, match=f"plan hash: there '{record.hashes['plan']}', now"):
        train_run(run_of(mixture=other_cells))
    assert RunRecord.read(record.folder) == record
    restarted = train_run(run_of(lr=0.01), restart=True)
    assert restarted.hashes["model"] != record.hashes["model"]


def test_a_folder_of_something_else_is_refused_and_left_alone(run_of: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            train_run(run_of("run"), restart=restart)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_hvg_genes_come_from_the_training_cells_alone(run_of: Any, atlas: Store) -> None:
    run = run_of(genes={"hvg": 30}, epochs=1)
    genes = load(train_run(run).model_folder).genes
    plan = Mixture.from_dict(run["mixture"]).plan()
    assert set(genes) == set(hvg(atlas, 30, rows=plan.rows(0)).gene_ids)
    assert set(genes) != set(hvg(atlas, 30).gene_ids)
    assert list(genes) == [gene for gene in atlas.gene_ids if gene in set(genes)]


def test_every_kind_of_mixture_trains_the_same_model(run_of: Any, tmp_path: Path) -> None:
    content = run_of()["mixture"]
    mixture = Mixture.from_dict(content)
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(content))
    plan, validation = mixture.plan(), mixture.with_split("validation").plan()
    runs = {
        "mapping": {"mixture": content},
        "path": {"mixture": tmp_path / "mix.yaml"},
        "mixture": {"mixture": mixture},
        "plan": {"mixture": plan, "validation": validation},
    }
    hashes = {
        name: train_run(run_of(name, epochs=1, name="x", **given)).hashes["model"] for name, given in runs.items()
    }
    assert len(set(hashes.values())) == 1, hashes


def test_the_run_yaml_that_is_left_trains_the_same_model_again(run_of: Any, tmp_path: Path) -> None:
    first = train_run(run_of(mixture=Mixture.from_dict(run_of()["mixture"]), epochs=2, name="x"))
    content = yaml.safe_load((first.folder / "run.yaml").read_text())
    assert RunConfig.from_yaml(first.folder / "run.yaml").epochs == 2
    again = train_run({**content, "out": str(tmp_path / "again")})
    assert again.hashes["model"] == first.hashes["model"]


def test_a_mixture_of_every_kind_is_kept_so_that_it_can_be_planned_again(atlas: Store) -> None:
    blood, gut = "tissue = 'blood'", "tissue <> 'blood'"
    base = Mixture([Component("blood", atlas, where=blood)], split=Split(stratify="tissue"), seed=3)
    arm = Mixture([Component("gut", atlas, where=gut, choose=9, evenly="cell_type", op="replace")], base=base, draws=50)
    parts = [Component("b", atlas, balance={"cell_weights": "total_counts"}), Component("c", atlas, where=gut)]
    balanced = Mixture(parts, balance={"column": "cell_type", "weights": {"B cell": 2}, "other": 1.0})
    for mixture in (arm, balanced):
        again = Mixture.from_dict(json.loads(json.dumps(describe_mixture(mixture))))
        assert again.plan().hash == mixture.plan().hash
    with pytest.raises(ConfigError, match="a ladder of 2"):
        resolve_plans(RunConfig(mixture=Mixture([Component("b", atlas)], ladder=[0.1, "50%"]), out=Path("x")))


def test_validation_cells_that_are_trained_on_are_refused(run_of: Any, atlas: Store) -> None:
    rows = np.arange(100)
    plans = {"mixture": plan_cells({"a": [(atlas, rows)]}), "validation": plan_cells({"b": [(atlas, rows[90:])]})}
    with pytest.raises(InputError, match="10 validation cells"):
        train_run(run_of(**plans))


def test_without_validation_cells_a_run_says_so_and_trains(run_of: Any, atlas: Store) -> None:
    record = train_run(run_of(mixture=plan_cells({"a": [(atlas, np.arange(64))]}), epochs=1))
    assert record.n_validation == 0
    assert any("no validation cells" in note for note in record.notes)
    assert "elbo_validation" not in record.metrics


def test_a_last_batch_that_is_too_small_is_left_out_and_noted(run_of: Any, atlas: Store) -> None:
    record = train_run(run_of(mixture=plan_cells({"a": [(atlas, np.arange(65))]}), epochs=1))
    assert any("last batch of each epoch would hold 1 cells" in note for note in record.notes)
    assert np.isfinite(record.metrics["elbo_train"])


def test_genes_that_the_store_does_not_have_are_refused_before_training(run_of: Any) -> None:
    with pytest.raises(QueryError, match="ENSG99999999999"):
        train_run(run_of(genes=["ENSG99999999999"]))


def test_evaluators_are_handed_the_folder_once(run_of: Any) -> None:
    seen = []

    def count_weights(folder: Path) -> dict[str, int]:
        seen.append(folder)
        return {"n_weights": sum(value.numel() for value in load(folder / "model").module.parameters())}

    record = train_run(run_of(), evaluators=[count_weights])
    assert record.evaluation is not None
    assert record.evaluation["count_weights"]["n_weights"] > 1000
    assert train_run(run_of(), evaluators=[count_weights]) == record
    assert seen == [record.folder]
    assert json.loads((record.folder / "run.json").read_text())["evaluation"] == record.evaluation


def test_training_is_quiet_and_leaves_nothing_behind(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    events: list[Event] = []
    said: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
    with listening(events.append), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        cm.train(run_of())  # the module itself is the verb
    assert said == []
    assert [one for one in warned if "lightning" in str(one.filename)] == []
    assert torch.equal(before, torch.random.get_rng_state())
    assert list((tmp_path / "here").iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert [event.done for event in events if event.unit == "epochs"] == [0, 1, 2, 3]


# ---- configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epoch": 3}, "unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"model": {"n_latnt": 3}}, "unknown key 'n_latnt'. Did you mean 'n_latent'?"),
        ({"epochs": 0, "lr": -1}, "epochs: .* lr: "),
        ({"genes": {"hgv": 3}}, "genes"),
        ({"genes": ["a", "a"]}, "names a gene twice"),
        ({"seeds": {"init": 1}}, "either seed or seeds"),
        ({"mixture": 5}, "mixture: expected a mapping as in mix.yaml"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(run_of: Any, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train_run(run_of(**change))


def test_a_yaml_file_means_the_same_from_everywhere(
    run_of: Any, atlas: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(out="runs/a")
    run["mixture"]["components"][0]["store"] = "../" + str(atlas.path.relative_to(tmp_path.parent))
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    monkeypatch.chdir("/")
    config = RunConfig.from_yaml(path)
    assert config.out == tmp_path / "runs/a"
    assert Path(config.mixture["components"][0]["store"]).samefile(atlas.path)  # type: ignore[index]
    with pytest.raises(NotFoundError):
        RunConfig.from_yaml(tmp_path / "nothing.yaml")
    path.write_text("out: [")
    with pytest.raises(ConfigError, match=r"run\.yaml: this is not valid YAML"):
        RunConfig.from_yaml(path)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no run\.json"):
        RunRecord.read(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="damaged"):
        RunRecord.read(tmp_path)


def test_a_training_that_diverges_says_so_and_what_to_try(run_of: Any) -> None:
    with pytest.raises(DivergedError, match=r"diverged in epoch \d+ .*lr=1000\.0.*smaller learning rate"):
        train_run(run_of("wild", epochs=8, lr=1000.0))
