"""Vectors of the originals chosen by what they hold, where the beginning of an id does not tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parity_vectors import Case, load


def where(name: str, keep: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Return a parametrisation by the cases of a file that `keep` holds for; a skip where there are none."""
    cases = [case for case in load(name) if keep(case)]
    if not cases:
        absent = pytest.mark.skip(reason=f"no such vectors of {name}")
        return pytest.mark.parametrize("case", [pytest.param(None, id="absent", marks=absent)])
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])
