"""An experiment from its file to its report: nothing is done twice, and no kill loses what was finished."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scvi")

from cellmill.errors import StoreExistsError, StoreLockedError
from cellmill.events import Event, listening
from cellmill.models import LdvaeConfig
from cellmill.pipeline import ExperimentResult, run_experiment
from cellmill.pipeline.config import ModelConfig, TrainConfig
from cellmill.storage import exclusive_lock
from cellmill.train import RunConfig

EXPERIMENT = """\
name: small
out: result
seed: 4
seeds: [0]
data:
  simulate: {n_cells: 600, n_genes: 400, seed: 1}
split: {by: donor_id, train: 0.6, validation: 0.15, test: 0.25}
evaluation:
  - {name: blood, where: "tissue = 'blood'", split: test}
  - {name: gut, where: "tissue = 'large intestine'", split: test}
arms:
  blood:
    components:
      - {name: blood, where: "tissue = 'blood'", choose: 80}
  both:
    components:
      - {name: blood, where: "tissue = 'blood'", choose: 80}
      - {name: gut, where: "tissue = 'large intestine'", choose: 80}
model: {n_hidden: 16}
train: {epochs: 4, genes: {hvg: 120}, validation_every: 2}
measure: {hvg: 60}
report: {title: First title}
"""

KILLED = """\
import os, signal, sys
from cellmill.events import listening
from cellmill.pipeline import run_experiment

def kill(event):
    if event.stage == sys.argv[2] and (event.message.startswith("begin") or event.done == int(sys.argv[3])):
        os.kill(os.getpid(), signal.SIGKILL)

with listening(kill):
    run_experiment(sys.argv[1])
"""


def write(folder: Path, text: str = EXPERIMENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def ran(result: ExperimentResult) -> list[str]:
    return [one.stage.name for one in result.outcomes if one.ran]


def numbers(report: Path) -> Any:
    """Return every score and every comparison of a report."""
    content = json.loads(report.with_suffix(".json").read_text())
    return content["scores"], content["table"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    return run_experiment(write(tmp_path_factory.mktemp("whole")))


def test_everything_is_done_once_and_reported(finished: ExperimentResult) -> None:
    assert ran(finished) == [
        "simulate the atlas",
        "build the store",
        "genes of the models",
        "genes of the evaluation",
        "plan blood",
        "train blood seed 0",
        "evaluate blood seed 0",
        "plan both",
        "train both seed 0",
        "evaluate both seed 0",
        "report",
    ]
    assert finished.report is not None
    page = finished.report.read_text()
    assert "First title" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page), "the report fetches something"
    assert (finished.out / "report.csv").exists()
    assert (finished.out / "report.json").exists()


def test_running_again_does_nothing_and_says_why(finished: ExperimentResult) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*") if path.is_file()}
    events: list[Event] = []
    with listening(events.append):
        result = run_experiment(finished.out.parent / "small.yaml")
    assert result.did_nothing
    messages = [event.message for event in events if event.message]
    assert any(one.startswith("up to date: train blood seed 0 (same inputs, finished 20") for one in messages)
    assert messages[-1] == "nothing to do: all 11 stages are up to date"
    assert "nothing to do: all 11 stages are up to date" in str(result)
    after = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} <= {finished.out / ".lock"}


def test_a_new_title_reaches_the_report_only(finished: ExperimentResult) -> None:
    path = write(finished.out.parent, EXPERIMENT.replace("First title", "Second title"))
    assert ran(run_experiment(path)) == ["report"]
    assert "Second title" in (finished.out / "report.html").read_text()


def test_a_changed_arm_reaches_that_arm_only(finished: ExperimentResult) -> None:
    runs = finished.out / "runs"
    untouched = (runs / "blood" / "seed-0" / "model" / "model.safetensors").read_bytes()
    old = (runs / "both" / "seed-0" / "model" / "model.safetensors").read_bytes()
    text = EXPERIMENT.replace("intestine'\", choose: 80", "intestine'\", choose: 60")
    result = run_experiment(write(finished.out.parent, text))
    assert set(ran(result)) <= {"plan both", "train both seed 0", "evaluate both seed 0", "report"}
    assert {"plan both", "train both seed 0", "evaluate both seed 0", "report"} == set(ran(result))
    assert (runs / "blood" / "seed-0" / "model" / "model.safetensors").read_bytes() == untouched
    assert (runs / "both" / "seed-0" / "model" / "model.safetensors").read_bytes() != old
    back = run_experiment(write(finished.out.parent, EXPERIMENT))
    assert "train both seed 0" in ran(back)
    assert (runs / "both" / "seed-0" / "model" / "model.safetensors").read_bytes() == old


def test_plans_of_another_format_are_made_again_before_training(
    finished: ExperimentResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(finished.out.parent, EXPERIMENT)
    run_experiment(path)
    for module in ("mixture.plan", "pipeline.stages"):
        monkeypatch.setattr(f"cellmill.{module}.PLAN_FORMAT", 99)
    events: list[Event] = []
    with listening(events.append):
        result = run_experiment(path, upto="train")
    why = {one.stage.name: one.why for one in result.outcomes if one.ran}
    assert why["plan blood"] == "changed: plan format"
    assert {one.split()[0] for one in why} == {"plan", "train"}
    assert not [event.message for event in events if "another run" in event.message]
    record = json.loads((finished.out / "runs" / "blood" / "seed-0" / "run.json").read_text())
    assert record["hashes"]["plan"] == result.results("plan blood")["hash"]
    monkeypatch.undo()
    run_experiment(path)


def test_a_run_that_means_something_else_begins_again_without_advice(finished: ExperimentResult) -> None:
    path = write(finished.out.parent, EXPERIMENT)
    run_experiment(path)
    folder = finished.out / "runs" / "blood" / "seed-0"
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "plan hash": "of another version"}))
    (finished.out / "records" / "train_blood_0.json").unlink()
    events: list[Event] = []
    with listening(events.append):
        run_experiment(path)
    (said,) = [event.message for event in events if event.message.startswith("begins again")]
    assert "plan hash: there 'of another version'" in said
    assert "restart" not in said


def test_killed_anywhere_it_continues_and_ends_the_same(finished: ExperimentResult, tmp_path: Path) -> None:
    run_experiment(write(finished.out.parent, EXPERIMENT))
    path = write(tmp_path)
    out = tmp_path / "result"
    moments = [("training blood seed 0", 2), ("report", -1)]
    times: dict[Path, int] = {}
    for stage, done in moments:
        child = subprocess.run([sys.executable, "-c", KILLED, str(path), stage, str(done)], env=os.environ, timeout=300)
        assert child.returncode == -signal.SIGKILL
        records = {one: one.stat().st_mtime_ns for one in (out / "records").glob("*.json")}
        assert times.items() <= records.items(), "a finished stage was done again"
        times = {one: when for one, when in records.items() if one.name != "input-hashes.json"}
    assert len((out / "runs" / "blood" / "seed-0" / "history.csv").read_text().splitlines()) == 5
    result = run_experiment(path)
    assert ran(result) == ["report"]
    assert numbers(out / "report.html") == numbers(finished.out / "report.html")
    for arm in ("blood", "both"):
        weights = [folder / "runs" / arm / "seed-0" / "model" / "model.safetensors" for folder in (out, finished.out)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_at_once_are_refused(finished: ExperimentResult) -> None:
    path = write(finished.out.parent)
    with (
        exclusive_lock(finished.out / ".lock", what="the experiment"),
        pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
    ):
        run_experiment(path)


def test_a_store_of_somebody_else_is_not_replaced(finished: ExperimentResult, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("data:\n", f"data:\n  store: {finished.out / 'atlas.mill'}\n")
    before = (finished.out / "atlas.mill" / "manifest.json").read_bytes()
    with pytest.raises(StoreExistsError, match="did not build"):
        run_experiment(write(tmp_path, text), upto="build")
    assert (finished.out / "atlas.mill" / "manifest.json").read_bytes() == before


def test_the_file_says_of_model_and_training_what_training_understands() -> None:
    assert ModelConfig().model_dump() == LdvaeConfig().model_dump()
    assert set(TrainConfig.model_fields) <= set(RunConfig.model_fields)


def test_upto_stops_there(tmp_path: Path) -> None:
    result = run_experiment(write(tmp_path), upto="plan")
    assert [one.stage.kind for one in result.outcomes] == ["simulate", "build", "plan", "plan"]
    assert result.report is None
    assert not (tmp_path / "result" / "runs").exists()
