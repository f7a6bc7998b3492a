"""`cellmill run` ends as it was told to: a signal at any moment of training is an exit code, never success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scvi")

EXPERIMENT = """\
name: small
out: result
seeds: [0]
data:
  simulate: {n_cells: 400, n_genes: 300, seed: 1}
split: {by: donor_id, train: 0.6, validation: 0.15, test: 0.25}
evaluation:
  - {name: blood, where: "tissue = 'blood'", split: test}
arms:
  all:
    components: [{name: all}]
model: {n_hidden: 8}
train: {epochs: 6, genes: {hvg: 60}, validation_every: 2}
measure: {hvg: 30}
"""
# The command itself, with a listener that sends a real signal to its own process at one event, or at one batch.
SIGNALLED = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from cellmill import cli
from cellmill.events import listening
number, moment, at = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sys.argv = ["cellmill", "run", "small.yaml"]

def send(event):
    if event.stage == moment and event.done == at and not event.message:
        os.kill(os.getpid(), number)

if moment == "batch":
    from cellmill.train import fit
    start = fit._Keeper.on_train_batch_start
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        start(self, trainer, module, batch, batch_idx)
        if trainer.current_epoch == at:
            os.kill(os.getpid(), number)
    fit._Keeper.on_train_batch_start = on_train_batch_start
with listening(send):
    cli.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    (folder / "small.yaml").write_text(EXPERIMENT)
    return folder


# Each goes on where the one before was stopped.
@pytest.mark.parametrize(
    ("number", "moment", "at"),
    [
        (signal.SIGTERM, "batch", 0),
        (signal.SIGINT, "training all seed 0", 1),
        (signal.SIGTERM, "training all seed 0", 6),
    ],
    ids=str,
)
def test_a_signal_while_training_is_how_the_command_ends(
    folder: Path, number: signal.Signals, moment: str, at: int
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number)), moment, str(at)],
        cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )  # fmt: skip
    if number == signal.SIGTERM:
        assert child.returncode == -signal.SIGTERM, child.stderr  # 143 in a shell
    else:
        assert child.returncode == 130, child.stderr
        assert "run the same command again to continue" in child.stderr
    assert not (folder / "result" / "report.html").exists()
