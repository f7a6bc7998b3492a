"""The scripts that pages about training show are run as they stand, on a small store in place of theirs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cellmill.ingest import build
from cellmill.loader import Loader
from cellmill.simulate import write_atlas

DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to"
# in one write: lines of two processes may else be written into each other
REPORT = "import os; os.write(1, b'steps %d\\n' % (number if 'number' in globals() else 0))\n"
BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=120, n_genes=60, seed=1))


def test_the_script_for_several_processes_runs_and_goes_on(atlas):
    (script,) = (block for block in BLOCK.findall((DOCS / "ddp.md").read_text()) if block.startswith("# train.py"))
    for shown, here in (("batch_size=512", "batch_size=20"), ("epochs=20", "epochs=2"), ("% 100", "% 4")):
        assert script.count(shown) == 1
        script = script.replace(shown, here)
    folder = atlas.path.parent
    (folder / "train.py").write_text(script + REPORT)
    for processes, steps, position in ((2, 12, 240), (1, 0, 240)):  # the second time nothing is left
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run([*command, "train.py"], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count(f"steps {steps}\n") == processes
        assert json.loads((folder / "state.json").read_text())["position"] == position


def test_the_lines_of_resuming_do_what_they_say(atlas):
    blocks = BLOCK.findall((DOCS / "resume-a-run.md").read_text())
    first, workers = [block for block in blocks if "state_dict" in block][:2]
    loader = Loader(atlas, batch_size=50, epochs=2)
    stream = iter(loader)
    used = [next(stream).cells.tolist() for _ in range(2)]
    names = {"loader": loader, "rest": []}
    exec(first + "    rest.append(batch.cells.tolist())\n", names)
    whole = [batch.cells.tolist() for batch in Loader(atlas, batch_size=50, epochs=2)]
    assert used + names["rest"] == whole
    names = {"loader": Loader(atlas, batch_size=50), "DataLoader": __import__("torch.utils.data").utils.data.DataLoader}
    exec(workers.replace("num_workers=4", "num_workers=2"), names)
    assert names["state"]["position"] == 120
