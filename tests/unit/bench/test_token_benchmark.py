"""`benchmarks/tokens.py`: which originals stand beside which recipes, and what happens to those that do not run."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cellmill as cm
from cellmill.simulate import write_reference

pytest.importorskip("torch")
pytest.importorskip("anndata")
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
NAMES = ("machine", "originals", "tokens")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in NAMES:
            del sys.modules[name]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> cm.Store:
    folder = tmp_path_factory.mktemp("tokens")
    cm.build(folder / "small.mill", write_reference(folder / "in", n_cells=100, n_genes=800, n_shards=1))
    return cm.open(folder / "small.mill")


def test_every_original_stands_beside_a_recipe_of_its_own(scripts: dict[str, ModuleType], store: cm.Store) -> None:
    recipes = [one.recipe for one in scripts["originals"].ORIGINALS]
    assert len(set(recipes)) == len(recipes)
    assert set(recipes) <= set(scripts["tokens"].recipes_of(store))


def test_originals_that_do_not_run_are_told_and_left_out(
    scripts: dict[str, ModuleType], store: cm.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("UCE", "nicheformer"):
        (tmp_path / "checkouts" / folder).mkdir(parents=True)
    (tmp_path / "checkouts" / "UCE" / "eval_data.py").write_text("raise ImportError('no such thing')\n")
    assert scripts["originals"].make_ready(tmp_path / "checkouts", store, tmp_path) == {}
    told = capsys.readouterr().out
    assert "ImportError: no such thing" in told
    assert "FileNotFoundError" in told  # of Nicheformer
    assert "bowang-lab/scGPT, no checkout in scGPT\n" in told
    assert told.count("left out") == len(scripts["originals"].ORIGINALS)


def test_an_original_does_a_batch_before_it_is_timed(
    scripts: dict[str, ModuleType], store: cm.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = scripts["originals"]
    done: list[int] = []

    def prepare(place: Any) -> Any:
        def process(batch: Any) -> int:
            done.append(batch.shape[0])
            return batch.shape[0]

        return originals.Work(place.batches(place.counts), process)

    monkeypatch.setattr(originals, "ORIGINALS", (originals.Original("mine", "me/mine", "csr", "all", prepare),))
    (tmp_path / "mine").mkdir()
    (tmp_path / "own").mkdir()
    made = originals.make_ready(tmp_path, store, tmp_path / "own")
    assert done == [100]
    assert originals.rate_of_original(made["csr"], 0.001) > 0


def test_stand_ins_are_gone_after_the_import(scripts: dict[str, ModuleType]) -> None:
    real = types.ModuleType("has_been_there")
    sys.modules["has_been_there"] = real
    with scripts["originals"].stand_ins({"has_been_there": {"thing": 1}, "is_not.there": {}}):
        assert importlib.import_module("has_been_there").thing == 1
    assert sys.modules.pop("has_been_there") is real
    assert "is_not.there" not in sys.modules
