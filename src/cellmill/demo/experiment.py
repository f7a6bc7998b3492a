"""The experiment that a demonstration runs (demo): composed as the content of an experiment file.

Knows the words of that file and looks at a built store to settle splits and sizes; trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.demo.columns import choose_renames
from cellmill.errors import InputError, MixtureError
from cellmill.mixture import Component, Mixture, Split
from cellmill.sources import expand_inputs, open_source
from cellmill.store import Store

__all__ = ["data_section", "own_experiment", "simulated_experiment"]

Json = Any
I64 = npt.NDArray[np.int64]

SIMULATED_CELLS = 3000
SIMULATED_SPLIT_SEED = 4  # leaves at least three donors of each tissue on the test side
MOST_CELLS = 20_000  # of an arm: beyond this a demonstration is no demonstration
MOST_SETS = 6
STEPS = 1000
BATCH_SIZE = 64
MODEL_GENES = 1000
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
SPLIT_SEEDS = 40
OF_DONORS = "held-out donors: no cell of theirs was trained on"
OF_CELLS = "held-out cells of the same donors, since donors are not known: read it as an upper bound"


def simulated_experiment(*, n_cells: int | None = None) -> dict[str, Json]:
    """Return the content of an experiment on a simulated atlas: blood alone, and blood and gut at the same size."""
    n_cells = n_cells or SIMULATED_CELLS
    each = n_cells // 3
    blood, gut = "tissue = 'blood'", "tissue = 'large intestine'"
    return {
        "name": "demo",
        "out": ".",
        "seed": SIMULATED_SPLIT_SEED,
        "seeds": [0, 1],
        "data": {"simulate": {"n_cells": n_cells, "seed": 0}},
        "split": {"by": "donor_id", "train": 0.6, "validation": 0.15, "test": 0.25},
        "evaluation": [
            {"name": "blood", "where": blood, "split": "test", "note": OF_DONORS},
            {"name": "gut", "where": gut, "split": "test", "note": OF_DONORS},
        ],
        "arms": {
            "blood": {"components": [{"name": "blood", "where": blood, "choose": each}]},
            "blood-and-gut": {
                "components": [
                    {"name": "blood", "where": blood, "choose": each // 2},
                    {"name": "gut", "where": gut, "choose": each // 2},
                ]
            },
        },
        "train": _training(each),
        "measure": {"hvg": MODEL_GENES},
        "report": {
            "title": "cellmill demo: what does a second tissue add?",
            "note": (
                "A simulated atlas of three studies (h5ad, 10x HDF5, Matrix Market) was built into one store. A model "
                "was trained on blood alone, and one on as many cells of blood and gut, two seeds each; both were "
                "evaluated on donors that neither has seen."
            ),
        },
    }


def data_section(inputs: Sequence[str | Path]) -> dict[str, Json]:
    """Return the data section for files of one's own: absolute paths, and obs columns brought to one name.

    Raises
    ------
    InputError
        For files that are not there or cannot be read.
    """
    paths = [path.absolute() for path in expand_inputs(list(inputs))]
    schemas = []
    for path in paths:
        with open_source(path) as source:
            schemas.append(source.obs().schema)
    section: dict[str, Json] = {"inputs": [str(path) for path in paths]}
    renames = choose_renames(schemas)
    if renames:
        section["rename"] = renames
    return section


def own_experiment(data: Mapping[str, Json], store: Store) -> dict[str, Json]:
    """Return the content of an experiment on a built store: all its data sets, and each alone where that is cheap.

    Raises
    ------
    InputError
        When there are too few cells to hold any out.
    """
    donors = "donor_id" if "donor_id" in store.obs.columns else None
    sets = _DataSets.of(store, donors)
    split = _choose_split(store, sets, donors)
    trained = [name for i, name in enumerate(sets.names) if split.train[i]]
    n_cells = min(int(split.train.sum()), MOST_CELLS)
    return {
        "name": "demo",
        "out": ".",
        "seed": split.seed,
        "seeds": [0, 1],
        "data": dict(data),
        "split": {"by": split.by, **SHARES},
        "evaluation": _evaluation(store, sets, split),
        "arms": _arms(trained, n_cells, int(split.train.sum())),
        "train": _training(n_cells),
        "measure": {"hvg": MODEL_GENES},
        "report": {"title": f"cellmill demo: {', '.join(sets.names)}"[:120], "note": _note(data, split)},
    }


@dataclass(frozen=True)
class _DataSets:
    """The data sets of a store.

    Attributes
    ----------
    names : tuple of str
    code : int64, shape (n_cells,)
        Data set of each cell.
    known : bool, shape (n_names,)
        Whether the donors of all cells of a data set are known.
    """

    names: tuple[str, ...]
    code: I64
    known: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, store: Store, donors: str | None) -> _DataSets:
        texts = store.column("dataset").to_pylist()
        place = {name: i for i, name in enumerate(dict.fromkeys(texts))}  # in the order of the inputs
        names, code = tuple(place), np.array([place[text] for text in texts], dtype=np.int64)
        if donors is None:
            known = np.zeros(len(names), dtype=bool)
        else:
            null = np.array([value is None for value in store.column(donors).to_pylist()])
            known = np.bincount(code, weights=null, minlength=len(names)) == 0
        return cls(names, code, known)

    def counts(self, rows: I64) -> I64:
        """Cells of each data set among `rows`."""
        return np.bincount(self.code[rows], minlength=len(self.names)).astype(np.int64)


@dataclass(frozen=True)
class _ChosenSplit:
    """A split that leaves something on both sides; cells of each data set in train and test."""

    by: str
    seed: int
    train: I64
    test: I64


def _choose_split(store: Store, sets: _DataSets, donors: str | None) -> _ChosenSplit:
    """By donor where a seed can be found that trains on every data set and, at best, tests on it too; else by cell."""
    strict = [_try_split(store, sets, donors, seed) for seed in range(SPLIT_SEEDS)] if donors else []
    good = [one for one in strict if one is not None]
    total = np.bincount(sets.code, minlength=len(sets.names))
    for one in good:
        share = one.test / np.maximum(total, 1)
        if one.train.all() and ((share > 0.05) & (share < 0.45)).all():
            return one
    for one in good:
        if one.train.all() and one.test.any():
            return one
    by_cell = _try_split(store, sets, "cell", 0)
    if by_cell is None:
        raise InputError(
            f"{store.path}: {store.n_cells} cells are too few to train on some and hold out others; "
            "a demonstration needs some hundred cells."
        )
    return by_cell


def _try_split(store: Store, sets: _DataSets, by: str | None, seed: int) -> _ChosenSplit | None:
    split = Split(by or "cell", SHARES["train"], SHARES["validation"], SHARES["test"])
    counts = []
    for side in ("train", "test"):
        mixture = Mixture([Component(side, store, split=side)], seed=seed, split=split)
        try:
            counts.append(sets.counts(mixture.plan().rows(0)))
        except MixtureError:
            return None
    return _ChosenSplit(split.by, seed, counts[0], counts[1])


def _evaluation(store: Store, sets: _DataSets, split: _ChosenSplit) -> list[dict[str, Json]]:
    """One set for each data set that has held-out cells; the largest ones of many."""
    tested = [i for i in np.argsort(-split.test, kind="stable").tolist() if split.test[i]][:MOST_SETS]
    cell_type = "cell_type" if "cell_type" in store.obs.columns else None
    return [
        {
            "name": sets.names[i],
            "where": f"dataset = {_quoted(sets.names[i])}",
            "split": "test",
            "cell_type": cell_type,
            "note": OF_DONORS if split.by != "cell" and sets.known[i] else OF_CELLS,
        }
        for i in sorted(tested)
    ]


def _arms(names: Sequence[str], n_cells: int, available: int) -> dict[str, Json]:
    def one(chosen: Sequence[str]) -> dict[str, Json]:
        return {"components": [{"name": name, "where": f"dataset = {_quoted(name)}"} for name in chosen]}

    everything: dict[str, Json] = {"components": [{"name": "everything"}]} if len(names) > MOST_SETS else one(names)
    if n_cells < available:
        everything["cells"] = n_cells
    arms = {"all-data": everything}
    if 2 <= len(names) <= 3 and n_cells == available:
        for i, name in enumerate(names):
            arm = f"{_arm_name(name)}-alone"
            arms[arm if arm not in arms else f"{arm}-{i}"] = one([name])
    return arms


def _note(data: Mapping[str, Json], split: _ChosenSplit) -> str:
    held_out = "donors where they are known, and cells otherwise" if split.by != "cell" else "cells"
    text = f"Each model was trained on seven tenths of the data and evaluated on held-out {held_out}."
    if data.get("rename"):
        renamed = ", ".join(f"{old} is called {new}" for old, new in data["rename"].items())
        text += f" Columns were brought to one name: {renamed}."
    return text


def _training(n_cells: int) -> dict[str, Json]:
    """As many epochs as give some hundred steps, whatever the number of cells."""
    epochs = int(np.clip(round(STEPS * BATCH_SIZE / max(n_cells, 1)), 3, 120))
    return {
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
        "genes": {"hvg": MODEL_GENES},
        "validation_every": max(1, epochs // 10),
    }


def _arm_name(name: str) -> str:
    text = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "-" for letter in name)
    return text.strip("._+-") or "data"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
