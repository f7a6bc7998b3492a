"""What is said of inputs in a YAML file is kept in their reports; what cannot be meant is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cellmill as cm
from cellmill.errors import ConfigError, NotFoundError
from cellmill.ingest import build_part, commit, read_about


def write(folder: Path, text: str) -> Path:
    path = folder / "about.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def reports(store: cm.Store) -> dict[str, Any]:
    return {
        entry.name: json.loads((store.path / entry.report.path).read_text(encoding="utf-8"))["about"]
        for entry in store.manifest.sources
    }


def test_an_input_takes_the_facts_of_all_entries_that_are_of_it(tmp_path: Path, tiny_h5ad: Any) -> None:
    about = write(
        tmp_path,
        "sources:\n- {inputs: '*.h5ad', licence: CC0-1.0, release: 2024-07-01}\n- {inputs: [two.h5ad], licence: MIT}\n",
    )
    files = [tiny_h5ad("one", seed=1).path, tiny_h5ad("two", seed=2).path]
    store = cm.build(tmp_path / "s.mill", files, vocabulary="union", about=about)
    assert reports(store) == {
        "one": {"licence": "CC0-1.0", "release": "2024-07-01"},
        "two": {"licence": "MIT", "release": "2024-07-01"},
    }
    grown = cm.append(tmp_path / "s.mill", [tiny_h5ad("three", seed=3).path], about=about_of_three(tmp_path))
    assert reports(grown)["three"] == {"doi": "10.1/3"}
    assert reports(grown)["two"]["licence"] == "MIT"
    assert grown.verify().ok


def about_of_three(folder: Path) -> Path:
    return write(folder, "sources:\n- {inputs: three.h5ad, doi: 10.1/3}\n")


def test_what_is_said_of_inputs_does_not_change_the_counts(tmp_path: Path, tiny_h5ad: Any) -> None:
    file = tiny_h5ad("one").path
    about = write(tmp_path, "sources:\n- {inputs: one.h5ad, licence: MIT}\n")
    with_it = cm.build(tmp_path / "a.mill", [file], vocabulary="union", about=about)
    without = cm.build(tmp_path / "b.mill", [file], vocabulary="union")
    assert with_it.digest == without.digest
    assert reports(without) == {"one": {}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [", "not YAML"),
        ("- 1", "expected a list `sources:`"),
        ("sources: []\nmore: 1", "expected a list `sources:`"),
        ("sources:\n- {licence: MIT}", "entry 1: there is no `inputs`"),
        ("sources:\n- {inputs: a}\n- {inputs: [], doi: x}", "entry 2: `inputs` must be"),
        ("sources:\n- {inputs: a, license: MIT}", "'license' is not known. Did you mean 'licence'"),
        ("sources:\n- {inputs: a, licence: }", "entry 1: licence must be text, found None"),
        ("sources:\n- {inputs: a, doi: [1]}", "entry 1: doi must be text"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_about(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_entry_of_no_input_is_refused_before_anything_is_written(tmp_path: Path, tiny_h5ad: Any) -> None:
    file = tiny_h5ad("blood").path
    about = write(tmp_path, "sources:\n- {inputs: bloood.h5ad, licence: MIT}\n")
    with pytest.raises(ConfigError, match=r"no input is meant by 'bloood\.h5ad'.*blood\.h5ad"):
        cm.build(tmp_path / "s.mill", [file], vocabulary="union", about=about)
    assert not (tmp_path / "s.mill").exists()
    with pytest.raises(NotFoundError, match="no such file"):
        read_about(tmp_path / "none.yaml")


def test_parts_of_a_job_array_keep_it_until_the_commit(tmp_path: Path, tiny_h5ad: Any) -> None:
    files = [tiny_h5ad("one", seed=1).path, tiny_h5ad("two", seed=2).path]
    about = write(tmp_path, "sources:\n- {inputs: '*.h5ad', licence: MIT}\n")
    for part in (1, 2):
        build_part(tmp_path / "s.mill", files, part=(part, 2), vocabulary="union", about=about)
    assert reports(commit(tmp_path / "s.mill")) == {"one": {"licence": "MIT"}, "two": {"licence": "MIT"}}
