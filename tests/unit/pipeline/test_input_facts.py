"""What an experiment finds of its inputs changes with each file that decides what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmill.pipeline.config import load_experiment
from cellmill.pipeline.world import read_facts

EXPERIMENT = """\
name: small
out: result
data: {inputs: [INPUT]}
split: {by: donor_id, train: 0.6, validation: 0.2, test: 0.2}
evaluation:
  - {name: blood, where: "tissue = 'blood'", split: test}
arms:
  base: {components: [{name: blood, where: "tissue = 'blood'", choose: 100}]}
train: {epochs: 3, genes: {hvg: 200}}
report: {title: A title, base: base}
"""


def facts(folder: Path, name: str) -> dict[str, str]:
    path = folder / "experiment.yaml"
    path.write_text(EXPERIMENT.replace("INPUT", name))
    return read_facts(load_experiment(path), cache_folder=folder / "cache")


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("study.counts.csv", "study.metadata.csv"),
        ("study.h5", "study.obs.csv"),
        ("matrix.mtx", "obs.csv"),
        ("matrix.mtx", "genes.tsv"),
    ],
)
def test_what_lies_beside_an_input_and_is_read_with_it_counts(tmp_path: Path, name: str, beside: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text("counts")
    seen = [facts(tmp_path, f"in/{name}")]
    for labels in ("cell,kind\nc1,T\n", "cell,kind\nc1,B\nc2,T\n"):
        (tmp_path / "in" / beside).write_text(labels)
        seen += [facts(tmp_path, f"in/{name}"), facts(tmp_path, f"in/{name}")]
    alone, first, again, second, last = seen
    assert first == again and second == last
    assert alone != first != second and set(alone) == set(second) == {f"input:in/{name}"}
