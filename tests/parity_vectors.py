"""Inputs and outputs of the original tokenisers: tests that need them skip where they are absent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# CELLMILL_PARITY names another folder of vectors of the same layout
FOLDER = Path(os.environ.get("CELLMILL_PARITY", Path(__file__).parents[1].parent / "shared/reference/parity"))


@dataclass(frozen=True)
class Case:
    """One call of an original: what went in, what came out."""

    id: str
    kind: str
    params: Mapping[str, Any]
    note: str
    arrays: Mapping[str, np.ndarray] = field(repr=False)

    def __getitem__(self, role: str) -> np.ndarray:
        return self.arrays[role]

    def __contains__(self, role: str) -> bool:
        return role in self.arrays


def load(name: str) -> list[Case]:
    """Return the cases of one file; none where it is absent."""
    if not (FOLDER / f"{name}.json").exists():
        return []
    described = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    return [
        Case(
            case["id"],
            case.get("kind", ""),
            case.get("params", {}),
            case.get("note", ""),
            {role: arrays[key] for role, key in case["arrays"].items()},
        )
        for case in described["cases"]
    ]


def each(name: str, *, prefix: tuple[str, ...] | str = "", unless: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Return a parametrisation by the cases of a file whose id begins with a prefix, and with none of `unless`."""
    cases = [case for case in load(name) if case.id.startswith(prefix) and not (unless and case.id.startswith(unless))]
    if not cases:
        absent = pytest.mark.skip(reason=f"no vectors of {name} in {FOLDER.name}")
        return pytest.mark.parametrize("case", [pytest.param(None, id="absent", marks=absent)])
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def rows(flat: np.ndarray, pointers: np.ndarray) -> list[np.ndarray]:
    """Return the rows of a ragged array."""
    return [flat[a:b] for a, b in zip(pointers[:-1].tolist(), pointers[1:].tolist(), strict=True)]


def within_five_sigma(hits: np.ndarray, draws: int, probability: np.ndarray | float) -> bool:
    """Whether how often things happened in so many draws fits their probability."""
    p = np.broadcast_to(np.asarray(probability, dtype=np.float64), np.shape(hits))
    allowed = 5 * np.sqrt(draws * p * (1 - p)) + 1e-9
    return bool((np.abs(hits - draws * p) <= allowed).all())
