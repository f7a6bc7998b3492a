"""What a model is shown at once, where that is no single cell (floor 4, mixture): sets, pairs, chunks. Settings only.

Knows names of columns and sizes. Which cells stand in which unit is `unit_plan`'s.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from cellmill.errors import ConfigError, nearest

__all__ = ["Chunks", "Pairs", "Sets", "Short", "Units", "Unmatched", "units_of"]

Short = Literal["repeat", "drop", "pad"]
Unmatched = Literal["refuse", "any", "drop"]


@dataclass(frozen=True)
class Sets:
    """Sets of `size` cells that share keys, each with a set of control cells if asked: `Loader(..., units=Sets(...))`.

    Cells with the same values of `by` are a group (of each component its own). In every epoch a group is shuffled anew
    and cut into sets, so that each cell is in one set, and no set holds a cell twice, as far as `short` allows.

    Parameters
    ----------
    size
        Cells of a set; its control set has as many.
    by
        Columns of obs whose values the cells of a set share; none for sets of any cells of a component. No value is
        a value too: cells without one are a group.
    control
        Condition over obs: cells that meet it are controls, and in no set of their own. They are looked for among
        all cells of the plan.
    match
        Columns of `by` in which a control set is as its set; none for controls at random.
    short
        What becomes of what is left when a group is cut, also of a whole group of fewer than `size` cells: "repeat"
        fills the set up with cells of the group from the beginning of its order (a cell comes twice in a set only
        where the group has fewer cells than the set); "pad" does the same and marks these cells in `batch.padding`;
        "drop" leaves the cells out of this epoch: other ones in the next, and of small groups all, always.
    unmatched
        What becomes of groups that no control matches: "refuse", "any" (any controls), or "drop" (leave them out).

    Raises
    ------
    ConfigError
        For settings that cannot be meant.

    Notes
    -----
    A control set is taken from the matching controls in a keyed order, round and round: while all sets of a component
    are drawn once, no control is used more than once more than another one of its match, and no control set holds a
    cell twice where there are enough.

    Examples
    --------
    >>> Sets(size=128, by=["perturbation", "cell_line", "batch"], control="perturbation = 'ctrl'", match=["batch"]).by
    ('perturbation', 'cell_line', 'batch')
    """

    size: int
    by: Sequence[str] = ()
    control: str | None = None
    match: Sequence[str] = ()
    short: Short = "repeat"
    unmatched: Unmatched = "refuse"

    shuffled: ClassVar[bool] = True
    along: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        _check(self, size="size", columns=("by", "match"), choices={"short": Short, "unmatched": Unmatched})
        _check_control(self.control, self.match)
        missing = [name for name in self.match if name not in self.by]
        if missing:
            raise ConfigError(
                f"Sets: match={list(self.match)} but the cells of a set may differ in {', '.join(map(repr, missing))}; "
                "name it in `by` too, or leave it out of `match`"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return _settings(self)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a cell and a control cell: `Loader(..., units=Pairs(...))`. Each cell is in one pair of an epoch.

    Parameters
    ----------
    control
        Condition over obs: cells that meet it are controls, and in no pair of their own. They are looked for among all
        cells of the plan.
    match
        Columns of obs in which a control is as its cell; none for controls at random. No value is a value too.
    unmatched
        What becomes of cells that no control matches: "refuse", "any" (any control), or "drop" (leave them out).

    Raises
    ------
    ConfigError
        For settings that cannot be meant.

    Notes
    -----
    While all cells of a component are drawn once, no control is used more than once more than another one of its
    match.

    Examples
    --------
    >>> Pairs(control="perturbation = 'ctrl'", match=["cell_line", "batch"]).match
    ('cell_line', 'batch')
    """

    control: str
    match: Sequence[str] = ()
    unmatched: Unmatched = "refuse"

    size: ClassVar[int] = 1
    shuffled: ClassVar[bool] = False  # the order of the pairs is one of the cells already
    along: ClassVar[str | None] = None
    short: ClassVar[Short] = "repeat"

    def __post_init__(self) -> None:
        _check(self, columns=("match",), choices={"unmatched": Unmatched})
        _check_control(self.control, self.match)
        if self.control is None:
            raise ConfigError("Pairs: say which cells are controls: control=\"perturbation = 'non-targeting'\"")

    @property
    def by(self) -> Sequence[str]:
        """Columns that make the groups: those of `match`."""
        return self.match

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return _settings(self)


@dataclass(frozen=True)
class Chunks:
    """Chunks of neighbouring cells, in their order: `Loader(..., units=Chunks(...))`.

    The cells of each group, in stored order or along a column, are cut at the same places in every epoch; the order of
    the chunks is another one in each.

    Parameters
    ----------
    cells
        Cells of a chunk.
    by
        Columns of obs whose values the cells of a chunk share; none for chunks of each component.
    along
        Numeric column of obs that cells are sorted by, such as pseudotime; those without a value come last. Stored
        order when None.
    short
        What becomes of the last chunk of a group where cells are left, also of a whole group of fewer cells than a
        chunk: "repeat" lets it begin earlier, so that its first cells are the last ones of the chunk before (a small
        group is repeated instead); "pad" does the same and marks these cells in `batch.padding`; "drop" leaves the
        cells out, the same ones in every epoch.

    Raises
    ------
    ConfigError
        For settings that cannot be meant.

    Examples
    --------
    >>> Chunks(cells=64, by=["donor_id"]).size
    64
    """

    cells: int
    by: Sequence[str] = ()
    along: str | None = None
    short: Short = "repeat"

    shuffled: ClassVar[bool] = False
    control: ClassVar[str | None] = None
    match: ClassVar[tuple[str, ...]] = ()
    unmatched: ClassVar[Unmatched] = "refuse"

    def __post_init__(self) -> None:
        _check(self, size="cells", columns=("by",), choices={"short": Short})

    @property
    def size(self) -> int:
        """Cells of a chunk, as in `Sets`."""
        return self.cells

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return _settings(self)


Units = Sets | Pairs | Chunks


def units_of(value: object, *, where: str) -> Sets | Pairs | Chunks | None:
    """Return units from a mapping as YAML gives it: `kind` (sets, pairs or chunks), and the arguments of that kind.

    Raises
    ------
    ConfigError
        For an unknown kind or key, and for settings that cannot be meant.

    Examples
    --------
    >>> units_of({"kind": "chunks", "cells": 64}, where="units").size
    64
    """
    if value is None or isinstance(value, Sets | Pairs | Chunks):
        return value
    kinds: dict[str, type[Sets | Pairs | Chunks]] = {"sets": Sets, "pairs": Pairs, "chunks": Chunks}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or kind not in kinds:
        raise ConfigError(
            f"{where}: expected {{kind: {' | '.join(kinds)}, ...}}, found {value!r}.{nearest(str(kind), list(kinds))}"
        )
    chosen, given = kinds[kind], {key: inner for key, inner in value.items() if key != "kind"}
    known = [field.name for field in fields(chosen)]
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")
    needed = [field.name for field in fields(chosen) if field.default is MISSING and field.name not in given]
    if needed:
        raise ConfigError(f"{where}: {kind} need `{needed[0]}`")
    return chosen(**given)


def _settings(units: Any) -> dict[str, Any]:
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(units).items()}
    return {"kind": type(units).__name__.lower(), **said}


def _check(units: Any, *, columns: Sequence[str], choices: dict[str, Any], size: str | None = None) -> None:
    """Bring settings to one form, so that equal ones are equal and can be hashed."""
    kind = type(units).__name__
    if size is not None:
        object.__setattr__(units, size, _count(kind, size, getattr(units, size)))
    for field in columns:
        object.__setattr__(units, field, _names(kind, field, getattr(units, field)))
    for field, allowed in choices.items():
        value, known = getattr(units, field), get_args(allowed)
        if value not in known:
            hint = nearest(str(value), known)
            raise ConfigError(f"{kind}: {field} must be one of {', '.join(known)}, found {value!r}.{hint}")


def _count(kind: str, name: str, value: object) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{kind}: {name} must be a whole number of at least 1, found {value!r}")
    return number


def _names(kind: str, field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigError(f"{kind}: {field} must be a list of column names, not the text {value!r}; write [{value!r}]")
    names = tuple(value) if isinstance(value, Sequence) else (None,)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ConfigError(f"{kind}: {field} must be a list of names of columns, each once, found {value!r}")
    return names


def _check_control(control: str | None, match: Sequence[str]) -> None:
    if control is not None and (not isinstance(control, str) or not control.strip()):
        raise ConfigError(f"control must be a condition over obs, as perturbation = 'non-targeting', found {control!r}")
    if control is None and match:
        raise ConfigError(
            f"match={list(match)} says which controls match, but `control` does not say what a control is"
        )
