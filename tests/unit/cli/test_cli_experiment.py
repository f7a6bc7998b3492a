"""`run`, `train`, `evaluate` and `demo` hand the work to the pipeline and show what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import cellmill as cm
from cellmill.errors import MixtureError
from cellmill.events import emit

Call = Callable[..., Result]


@dataclass(frozen=True)
class FakeResult:
    outcomes: tuple[str, ...] = ("one", "two")

    def to_dict(self) -> dict[str, Any]:
        return {"did_nothing": False, "stages": list(self.outcomes)}

    def __str__(self) -> str:
        return "done: one\nup to date: two\nreport: out/report.html"


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> FakeResult:
        self.calls.append((args, kwargs))
        emit("train base seed 0", done=1, total=2, unit="epochs")
        return FakeResult()


EXAMPLE = Path(__file__).parents[3] / "examples" / "compare-arms.yaml"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(cm.pipeline, "run_experiment", recorder, raising=False)
    return recorder


@pytest.mark.parametrize(("verb", "upto"), [("run", None), ("train", "train"), ("evaluate", "evaluate")])
def test_verb_runs_the_experiment_up_to_its_stage(call: Call, runner: Recorder, verb: str, upto: str | None) -> None:
    result = call(verb, EXAMPLE)
    assert result.exit_code == 0, result.output
    assert runner.calls == [((cm.pipeline.load_experiment(EXAMPLE),), {"upto": upto})]
    assert result.stdout.splitlines() == ["report: out/report.html"]  # the stages are told once, on standard error
    assert "train base seed 0: 1 of 2 epochs" in result.stderr


def test_stages_are_told_once_also_where_no_progress_is_shown(call: Call, runner: Recorder) -> None:
    quiet, loud = call("--quiet", "run", EXAMPLE), call("run", EXAMPLE)
    assert (quiet.stdout.splitlines(), quiet.stderr) == (str(FakeResult()).splitlines(), "")
    assert "done: one" not in loud.stdout


@pytest.mark.parametrize("verb", ["run", "train", "evaluate"])
def test_json_is_the_result(call: Call, runner: Recorder, verb: str) -> None:
    result = call(verb, EXAMPLE, "--json")
    assert json.loads(result.stdout) == FakeResult().to_dict()


def test_error_of_a_stage_names_the_stage(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *, upto: str | None) -> None:
        error = MixtureError("component 'gut' has no cells")
        error.add_note("in the stage: plan base")
        raise error

    monkeypatch.setattr(cm.pipeline, "run_experiment", fail, raising=False)
    result = call("run", EXAMPLE)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["error: component 'gut' has no cells", "  in the stage: plan base"]


def test_demo_passes_files_and_folder(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    recorder = Recorder()
    monkeypatch.setattr(cm.demo, "run_demo", recorder)
    assert call("demo").exit_code == 0
    assert call("demo", "a.h5ad", "b.h5", "--out", "mine").exit_code == 0
    assert recorder.calls == [
        ((Path("cellmill-demo"),), {"data": None}),
        ((Path("mine"),), {"data": ["a.h5ad", "b.h5"]}),
    ]


@pytest.mark.parametrize("content", [None, "name: x\n  foo: [", "name: x\nmodel: {kind: ldvea}\n"])
@pytest.mark.parametrize("verb", ["run", "train", "evaluate"])
def test_a_wrong_file_is_told_before_torch_is_imported(tmp_path: Path, verb: str, content: str | None) -> None:
    file = tmp_path / "experiment.yaml"
    if content is not None:
        file.write_text(content)
    program = (
        f"import sys; sys.argv = ['cellmill', {verb!r}, {str(file)!r}]\n"
        "from cellmill.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'scvi' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "experiment.yaml" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stdout.split() == ["False", "False"]
