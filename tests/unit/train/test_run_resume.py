"""A run that is killed ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cellmill.events import Event, listening
from cellmill.train import RunRecord, train_run

torch = pytest.importorskip("torch")

SCRIPT = "import json, sys; from cellmill.train import train_run; train_run(json.loads(sys.argv[1]))"


def killed_after(run: dict[str, Any], n_epochs: int) -> int:
    """Train in another process, kill it once `n_epochs` are in its history, and return how many were by then."""
    history = Path(run["out"]) / "history.csv"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(run)], env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done = len(history.read_text().splitlines()) - 1 if history.exists() else 0
        if done >= n_epochs:
            process.send_signal(signal.SIGKILL)
            break
        assert process.poll() is None, "the process ended before it could be killed"
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    return len(history.read_text().splitlines()) - 1


def without_seconds(record: RunRecord) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in record.history()]


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(run_of: Any) -> None:
    epochs = 24
    run = run_of("killed", epochs=epochs, name="same")
    first = killed_after(run, 3)
    second = killed_after(run, first + 4)
    assert first < second < epochs
    assert not RunRecord.read(run["out"]).finished
    assert not (Path(run["out"]) / "model").exists()

    events: list[Event] = []
    with listening(events.append):
        resumed = train_run(run)
    (said,) = [event.message for event in events if "continues from epoch" in event.message]
    assert said in (f"training same: continues from epoch {second + i} of {epochs}" for i in (0, 1))
    whole = train_run(run_of("whole", epochs=epochs, name="same"))
    ours, theirs = (load_file(one.model_folder / "model.safetensors") for one in (resumed, whole))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert resumed.hashes["model"] == whole.hashes["model"]
    assert without_seconds(resumed) == without_seconds(whole)
    assert [row["epoch"] for row in resumed.history()] == list(range(epochs))
    assert not (Path(run["out"]) / "checkpoint").exists()


def test_a_run_that_died_between_its_last_epoch_and_its_model_still_ends(
    run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **given: Any) -> None:
        raise OSError("the disk went away")

    run = run_of("died", epochs=4)
    with monkeypatch.context() as broken:
        broken.setattr(importlib.import_module("cellmill.train.run"), "save", fail)
        with pytest.raises(OSError, match="went away"):
            train_run(run)
    record = train_run(run)
    assert record.hashes["model"] == train_run(run_of("whole", epochs=4)).hashes["model"]
    assert [row["epoch"] for row in record.history()] == [0, 1, 2, 3]
