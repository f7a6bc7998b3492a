"""A run's folder belongs to one key at a time, also when the process is killed between two steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cellmill.errors import InputError
from cellmill.pipeline.records import claim_folder


def train(folder: Path, key: str) -> None:
    claim_folder(folder, key)
    folder.mkdir(exist_ok=True)
    (folder / f"of-{key}").touch()


def test_the_same_key_finds_its_work_and_another_a_clean_place(tmp_path: Path) -> None:
    folder = tmp_path / "base" / "seed-0"
    train(folder, "a")
    claim_folder(folder, "a")
    assert (folder / "of-a").exists()
    train(folder, "b")
    assert [path.name for path in folder.iterdir()] == ["of-b"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seed-0", "seed-0.key"]


def test_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "seed-0"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(InputError, match="did not make"):
        claim_folder(folder, "a")
    assert (folder / "thesis.txt").exists()


@pytest.mark.parametrize("step", ["rename", "write_atomic", "last rmtree"])
def test_killed_at_any_step_no_key_meets_anothers_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = tmp_path / "seed-0"
    train(folder, "a")
    calls = {"rmtree": 0}

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def second_rmtree(*arguments: object, **words: object) -> None:
        calls["rmtree"] += 1
        if calls["rmtree"] == 2:
            raise KeyboardInterrupt
        shutil.rmtree(*arguments, **words)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Path, "rename", killed)
        elif step == "write_atomic":
            patch.setattr("cellmill.pipeline.records.write_atomic", killed)
        else:
            patch.setattr("cellmill.pipeline.records.shutil", type("s", (), {"rmtree": staticmethod(second_rmtree)}))
        with pytest.raises(KeyboardInterrupt):
            claim_folder(folder, "b")
    train(folder, "b")
    assert [path.name for path in folder.iterdir()] == ["of-b"]
