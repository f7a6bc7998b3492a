"""From what a component says about balance to how its cells take turns (floor 4, mixture)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, MixtureError, NotFoundError
from cellmill.mixture.balance import Grouped, Weighted, capped_weights, class_draws, even_quotas
from cellmill.mixture.cells import Cells
from cellmill.mixture.config import Balance, check_weight
from cellmill.mixture.select import cell_numbers, choice_keys, class_codes
from cellmill.mixture.table import ClassRow
from cellmill.store import Store

__all__ = ["even_choice", "turns_of"]

Mask = npt.NDArray[np.bool_]


def turns_of(
    cells: Cells, stores: Sequence[Store], balance: Balance, total: int, *, seed: int
) -> tuple[Grouped | Weighted, tuple[ClassRow, ...]]:
    """Return how the cells of a component take turns in a pass of `total` draws, and what each class gets.

    Raises
    ------
    ConfigError
        For a column that is not there, a class without a weight, weights that are none, or a table that is not one.
    MixtureError
        When floor or max_repeat cannot be held.
    """
    if balance.cell_weights is not None:
        weights = cell_numbers(cells, stores, balance.cell_weights, needed_for="balance")
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(bad) or not weights.sum() > 0:
            found = f"{len(bad):,} cells have none, or one below 0" if len(bad) else "all are 0"
            raise ConfigError(
                f"balance: {balance.cell_weights!r} holds no weights, which are numbers, 0 or more: {found}. "
                "Leave such cells out with `where`"
            )
        capped = capped_weights(weights, total, max_repeat=balance.max_repeat)
        upto = np.concatenate([[0.0], np.cumsum(capped)])
        return Weighted(upto, total, seed), ()
    codes, names = class_codes(cells, stores, str(balance.column), needed_for="balance")
    sizes = np.bincount(codes, minlength=len(names))
    table = _weights_of(balance, names)
    draws = class_draws(
        sizes.tolist(), total, temperature=float(balance.temperature), weights=table, floor=float(balance.floor),
        max_repeat=balance.max_repeat,
    )  # fmt: skip
    # a class without a draw is no class: its cells never come
    members = np.lexsort((choice_keys(cells, stores, seed=seed), codes)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = tuple(ClassRow(name, n, d) for name, n, d in zip(names, sizes.tolist(), draws, strict=True))
    return Grouped(members, starts, np.array(draws, dtype=np.int64)), rows


def even_choice(cells: Cells, stores: Sequence[Store], column: str, n: int, *, seed: int) -> Mask:
    """Return which `n` cells to take so that each class has as many, as far as it has them; nested in `n`."""
    codes, names = class_codes(cells, stores, column, needed_for="evenly")
    quotas = np.array(even_quotas(np.bincount(codes, minlength=len(names)).tolist(), n))
    order = np.lexsort((choice_keys(cells, stores, seed=seed), codes))
    sorted_codes = codes[order]
    first = np.searchsorted(sorted_codes, np.arange(len(names)))
    mask = np.zeros(len(codes), dtype=bool)
    mask[order] = np.arange(len(codes)) - first[sorted_codes] < quotas[sorted_codes]
    return mask


def _weights_of(balance: Balance, names: Sequence[str]) -> list[float] | None:
    if balance.weights is None:
        return None
    given = balance.weights
    # keys of YAML may be numbers; the values of a column are texts here
    table = {str(k): w for k, w in given.items()} if isinstance(given, Mapping) else _read_weights(Path(given))
    missing = [name for name in names if name not in table]
    if missing and balance.other is None:
        raise ConfigError(
            f"balance: {len(missing)} of the {len(names)} values of {balance.column!r} have no weight, for example "
            f"{', '.join(map(repr, missing[:5]))}. Name them, or give `other`, the weight of all that are not named"
        )
    weights = [float(table.get(name, balance.other or 0.0)) for name in names]
    if not sum(weights) > 0:
        raise MixtureError(f"balance: all values of {balance.column!r} have the weight 0")
    return weights


def _read_weights(path: Path) -> dict[str, float]:
    """Return a table of values and weights from a file: CSV or TSV with two columns, or a JSON mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there is no such table of weights") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a table of weights ({error})") from None
    if path.suffix == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON ({error})") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: expected a mapping of values to weights, found {type(found).__name__}")
    else:
        found = _read_rows(path, text)
    for value, weight in found.items():
        check_weight(value, weight, where=str(path))
    return {str(value): float(weight) for value, weight in found.items()}


def _read_rows(path: Path, text: str) -> dict[str, float]:
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",") if row]
    found: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        try:
            value, weight = row[0], float(row[1])
        except (IndexError, ValueError):
            if number == 1:  # a header
                continue
            raise ConfigError(f"{path}, line {number}: expected a value and a weight, found {row!r}") from None
        if value in found:
            raise ConfigError(f"{path}, line {number}: {value!r} is there twice")
        found[value] = weight
    return found
