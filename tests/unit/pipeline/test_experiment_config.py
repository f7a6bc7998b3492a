"""The experiment file: what it may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmill.errors import ConfigError, NotFoundError
from cellmill.pipeline.config import ExperimentConfig, HvgConfig, load_experiment

GOOD = """\
name: small
out: result
seeds: [0, 1]
data:
  simulate: {n_cells: 600}
split: {by: donor_id, train: 0.6, validation: 0.2, test: 0.2}
evaluation:
  - {name: blood, where: "tissue = 'blood'", split: test}
arms:
  base:
    components:
      - {name: blood, where: "tissue = 'blood'", choose: 100}
  more:
    components:
      - name: blood
        where: tissue = 'blood'
        choose: 100
      - {name: gut, where: "tissue = 'gut'", choose: 100}
train:
  epochs: 3
  genes: {hvg: 200}
report: {title: A title, base: base}
"""


def load(folder: Path, text: str) -> ExperimentConfig:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return load_experiment(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def test_paths_are_meant_from_the_folder_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("simulate: {n_cells: 600}", "inputs: [a.h5ad, ../b/*.h5]")
    config = load(tmp_path, text)
    assert config.out == tmp_path / "result"
    assert config.data.store == tmp_path / "result" / "atlas.mill"
    assert config.data.inputs == (str(tmp_path / "a.h5ad"), str(tmp_path.parent / "b" / "*.h5"))


def test_training_cells_come_from_the_training_split_unless_said(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert {c.split for arm in config.arms.values() for c in arm.components} == {"train"}
    assert config.train.genes == HvgConfig(hvg=200)


@pytest.mark.parametrize(
    ("old", "new", "key", "meant"),
    [
        ("seeds: [0, 1]", "seed_s: [0, 1]", "seed_s", "seeds"),
        ("  epochs: 3", "  epoch: 3", "epoch", "epochs"),
        ("        where: tissue", "        were: tissue", "were", "where"),
        ("report: {title", "report: {titel", "titel", "title"),
        ("evaluation:\n  - {name: blood, where", "evaluation:\n  - {name: blood, wher", "wher", "where"),
        ("genes: {hvg: 200}", "gene: {hvg: 200}", "gene", "genes"),
    ],
)
def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one(
    tmp_path: Path, old: str, new: str, key: str, meant: str
) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    message = refused(tmp_path, text)
    assert f"experiment.yaml, line {line_of(text, key)}: unknown key {key!r}" in message
    assert f"Did you mean {meant!r}?" in message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("epochs: 3", "epochs: 0").replace("choose: 100}\n  more", "choose: -1}\n  more")
    message = refused(tmp_path, text)
    assert "train.epochs" in message
    assert "arms.base.components[0].choose" in message


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD.replace("  more:", "  base:"))
    assert "'base' stands here a second time" in message
    assert f"line {line_of(GOOD, 'more:')}" in message


def test_training_on_what_is_evaluated_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("        choose: 100\n", "        choose: 100\n        split: test\n")
    assert "component 'blood' of arm 'more' trains on 'test'" in refused(tmp_path, text)


def test_a_split_without_a_split_section_is_refused(tmp_path: Path) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("split:"))
    assert "names a split, but the file has no split section" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  simulate: {n_cells: 600}", "  counts: X", "say where the cells come from"),
        ("  simulate: {n_cells: 600}", "  simulate: {}\n  inputs: [a.h5ad]", "either inputs or simulate"),
        ("test: 0.2}", "test: 0.3}", "at most 1, not 1.1"),
        ("choose: 100}\n  more", "choose: 100, repeat: 2}\n  more", "give one of proportion, repeat, choose"),
        ("base: base}", "base: bass}", "Did you mean 'base'?"),
        ("  base:", "  ba/se:", "arm name 'ba/se'"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "different whole numbers"),
        ("genes: {hvg: 200}", "genes: 200", "genes must be all"),
        ("genes: {hvg: 200}", "genes: {hgv: 200}", "hgv"),
        ("name: small", "name small", "not valid YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert told in refused(tmp_path, text)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    assert "an experiment is a mapping with the keys name" in refused(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.yaml: no such file"):
        load_experiment(tmp_path / "absent.yaml")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\x89HDF\xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        load_experiment(path)


def test_a_wrong_component_is_told_alone_and_an_empty_list_in_words(tmp_path: Path) -> None:
    said = refused(tmp_path, GOOD.replace("gut'\", choose: 100", "gut'\", choose: 100, proportion: 0.5"))
    assert len(said.splitlines()) == 1, said
    assert "give one of proportion, repeat, choose" in said
    assert "seeds: expected at least 1 entry, found 0" in refused(tmp_path, GOOD.replace("[0, 1]", "[]"))
