"""A small store, made once, that the tests of the verbs read and do not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import cellmill as cm
from cellmill.cli import app

Call = Callable[..., Result]


@pytest.fixture(scope="session")
def small_inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cli-inputs")
    return cm.simulate.write_atlas(folder / "atlas", n_cells=240, n_genes=1200, seed=3)


@pytest.fixture(scope="session")
def small_store(small_inputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli-store") / "atlas.mill"
    cm.build(path, small_inputs)
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `cellmill` in this process with the given words."""
    monkeypatch.delenv("CELLMILL_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run
