"""Two arms with two seeds each on a small atlas, trained once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scvi")
pytest.importorskip("lightning")

from cellmill.evaluate import EvalSet  # noqa: E402
from cellmill.ingest import build  # noqa: E402
from cellmill.mixture import Mixture  # noqa: E402
from cellmill.simulate import write_atlas  # noqa: E402
from cellmill.store import Store  # noqa: E402
from cellmill.train import train_run  # noqa: E402

SPLIT = {"by": "donor_id", "train": 0.6, "validation": 0.2, "test": 0.2}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Experiment:
    """A store, the run folders of each arm, and the sets to evaluate on."""

    store: Store
    arms: dict[str, list[Path]]
    sets: list[EvalSet]


def mixture(store: Store, where: str, **more: Any) -> dict[str, Any]:
    return {"split": SPLIT, "components": [{"name": "cells", "store": str(store.path), "where": where, **more}]}


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("experiment")
    store = build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=360, n_genes=200, seed=2))
    arms: dict[str, list[Path]] = {}
    for name, where in (
        ("base", "study = 'blood-a'"),
        ("base & <gut>", "study <> 'blood-b'"),
        ("more", "tissue = 'blood'"),
    ):
        for seed in (0, 1):
            run = {
                "out": str(folder / f"{len(arms)}-{seed}"),
                "mixture": mixture(store, where),
                "model": {"n_latent": 4, "n_hidden": 16, "n_layers": 1},
                "epochs": 4,
                "batch_size": 32,
                "validation_every": 2,
                "seed": seed,
            }
            arms.setdefault(name, []).append(train_run(run).folder)
    sets = []
    for name, where in (("blood <test>", "tissue = 'blood'"), ("gut", "tissue <> 'blood'")):
        sets += EvalSet.from_plan(name, Mixture.from_dict(mixture(store, where, split="test")).plan())
    return Experiment(store, arms, sets)
