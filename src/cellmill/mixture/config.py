"""What a mixture says, checked (floor 4, mixture): components, split, exclusions, seeds; also from YAML.

Frozen data only. Knows no store's content; a store is a path or an open Store here and is looked into elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

import yaml

from cellmill.errors import ConfigError, MixtureError, NotFoundError, nearest
from cellmill.storage.urls import is_url
from cellmill.store import Store

__all__ = [
    "Component",
    "Exclusion",
    "Kind",
    "Seeds",
    "Split",
    "SplitName",
    "StoreLike",
    "kind_of",
    "parse",
    "read_yaml",
]

StoreLike = str | Path | Store
SplitName = Literal["train", "validation", "test", "all"]
Kind = Literal["proportion", "repeat", "choose"]

SPLIT_NAMES: Final = ("train", "validation", "test")
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Seeds:
    """Seeds of the three kinds of choice that a mixture makes.

    Attributes
    ----------
    data : int
        Which cells `choose`, `cells` and a fractional `repeat` take.
    split : int
        Which donors fall into which split.
    order : int
        The order of training, together with the loader's own seed.
    """

    data: int = 0
    split: int = 0
    order: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
                raise ConfigError(f"seed {field.name!r} must be a whole number in 0..2^64-1, found {value!r}")

    @classmethod
    def of(cls, seed: int | Mapping[str, int] | Seeds) -> Seeds:
        """Return seeds from one number for all of them, or from a mapping with some of them."""
        if isinstance(seed, Seeds):
            return seed
        if isinstance(seed, Mapping):
            _known(seed, _names(cls), where="seed")
            return cls(**seed)
        return cls(data=seed, split=seed, order=seed)


@dataclass(frozen=True)
class Split:
    """How cells are divided: all cells with the same value of a column fall on the same side.

    Parameters
    ----------
    by
        A column of obs whose values stay together ("donor_id", "dataset", ...); "cell" for each cell on its own.
    train, validation, test
        Shares of the values, not of the cells; what is missing to 1 is left out of all three.
    """

    by: str = "donor_id"
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.by, str) or not self.by:
            raise ConfigError(f"split: `by` must name a column of obs, or be 'cell', found {self.by!r}")
        for name in SPLIT_NAMES:
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ConfigError(f"split: {name} must be a share between 0 and 1, found {share!r}")
        if not 0 < sum(self.shares) <= 1 + 1e-9:
            raise ConfigError(
                f"split: the shares of {', '.join(SPLIT_NAMES)} add up to {sum(self.shares):.6g}, not to 1"
            )

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, validation and test."""
        return self.train, self.validation, self.test


@dataclass(frozen=True)
class Exclusion:
    """Cells that must not be trained on, and what else goes with them.

    Parameters
    ----------
    store
        The store that holds the registered cells (an evaluation set).
    where
        Which of its cells; all when None.
    by
        What a cell must share with a registered one to be removed: "uid" (the same cell), "fingerprint" (the same
        counts), or a column of obs ("donor_id", "dataset"). Rules apply in this order; a cell counts once.
    """

    store: StoreLike
    where: str | None = None
    by: tuple[str, ...] = ("uid", "fingerprint")

    def __post_init__(self) -> None:
        by: object = self.by
        if not isinstance(by, str | list | tuple):
            raise ConfigError(f"exclude: `by` must be a list of rules, found {by!r}")
        object.__setattr__(self, "by", (by,) if isinstance(by, str) else tuple(by))
        if not self.by:
            raise ConfigError("exclude: `by` names no rule; for example by: [uid, fingerprint, donor_id]")
        for rule in self.by:
            if not isinstance(rule, str):
                raise ConfigError(f"exclude: each rule in `by` is a name such as uid or donor_id, found {rule!r}")
        _check_selection("exclude", [self.store], self.where)


@dataclass(frozen=True)
class Component:
    """One part of a mixture: a selection of cells, and how often they are drawn.

    Parameters
    ----------
    name
        Unique within the mixture; part of the key of the order, so renaming changes the order.
    store
        One store (path or open Store), or several.
    where
        SQL condition over obs; all cells when None.
    split
        "train", "validation", "test" or "all". None means "train" where the mixture has a split, and all cells
        where it has none.
    proportion, repeat, choose
        At most one of them, and the same kind for all components; all None means repeat=1.
        proportion: share of every batch. repeat: times per epoch, 2.5 too. choose: this many of its cells.
    """

    name: str
    store: StoreLike | list[StoreLike] | tuple[StoreLike, ...]
    where: str | None = None
    split: SplitName | None = None
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"a component needs a name, found {self.name!r}")
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) > 1:
            raise ConfigError(f"component {self.name!r}: give one of {', '.join(KINDS)}, not {' and '.join(given)}")
        if self.split is not None and self.split not in get_args(SplitName):
            raise ConfigError(
                f"component {self.name!r}: split must be one of {', '.join(get_args(SplitName))}, "
                f"found {self.split!r}.{nearest(str(self.split), get_args(SplitName))}"
            )
        if not self.stores:
            raise ConfigError(f"component {self.name!r}: names no store")
        _check_selection(f"component {self.name!r}", self.stores, self.where)
        self._check_amounts()

    def _check_amounts(self) -> None:
        proportion, repeat, choose = self.proportion, self.repeat, self.choose
        if proportion is not None and not (_is_number(proportion) and 0 < proportion <= 1):
            raise ConfigError(
                f"component {self.name!r}: proportion must be above 0 and at most 1, found {proportion!r}"
            )
        if repeat is not None and not (_is_number(repeat) and 0 < repeat < 1e9):
            raise ConfigError(f"component {self.name!r}: repeat must be a number above 0, found {repeat!r}")
        if choose is not None and (isinstance(choose, bool) or not isinstance(choose, int) or choose < 1):
            raise ConfigError(f"component {self.name!r}: choose must be a whole number of cells, found {choose!r}")

    @property
    def stores(self) -> tuple[StoreLike, ...]:
        """The stores, also when only one was given."""
        return tuple(self.store) if isinstance(self.store, list | tuple) else (self.store,)


def kind_of(components: Sequence[Component]) -> Kind:
    """Return the one kind of amount that the components use.

    Raises
    ------
    MixtureError
        When they use different kinds, when shares do not add up to 1, or when one lacks its amount.
    """
    used = {c.name: kind for c in components for kind in KINDS if getattr(c, kind) is not None}
    if len(set(used.values())) > 1:
        said = ", ".join(f"{name}: {kind}" for name, kind in used.items())
        raise MixtureError(f"all components use the same one of {', '.join(KINDS)}; found {said}")
    kind: Kind = next(iter(used.values()), "repeat")
    lacking = [c.name for c in components if c.name not in used]
    if kind != "repeat" and lacking:
        raise MixtureError(f"{', '.join(map(repr, lacking))}: no `{kind}`, which the other components have")
    if kind == "proportion":
        total = sum(c.proportion or 0.0 for c in components)
        if abs(total - 1) > 1e-6:
            raise MixtureError(f"the proportions add up to {total:.6g}, not to 1; write them as shares of 1")
    return kind


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises
    ------
    NotFoundError
        When there is no such file.
    ConfigError
        When it is not YAML, or not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with `components:`, found {type(content).__name__}")
    return content


def parse(content: Mapping[str, Any], base: Path | None, *, where: str) -> dict[str, Any]:
    """Return the arguments of Mixture from a mapping as YAML gives it; relative store paths begin at `base`.

    Raises
    ------
    ConfigError
        For an unknown key, naming the nearest known one, and for values that cannot be meant.
    """
    known = ("name", "seed", "split", "exclude", "dedupe", "cells", "draws", "components")
    _known(content, known, where=where)
    if not content.get("components"):
        raise ConfigError(f"{where}: `components` is empty; a mixture needs at least one")
    arguments = {key: value for key, value in content.items() if key in {"name", "seed", "dedupe", "cells", "draws"}}
    if content.get("split") is not None:
        arguments["split"] = _split(content["split"], where=f"{where}: split")
    arguments["exclude"] = [
        Exclusion(**_entry(entry, Exclusion, base, where=f"{where}: exclude {i + 1}"))
        for i, entry in enumerate(_listed(content.get("exclude"), where=f"{where}: exclude"))
    ]
    arguments["components"] = [
        Component(**_entry(entry, Component, base, where=f"{where}: component {i + 1}"))
        for i, entry in enumerate(_listed(content["components"], where=f"{where}: components"))
    ]
    return arguments


def _split(value: object, *, where: str) -> Split:
    if isinstance(value, Split):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected {{by: donor_id, train: 0.8, ...}}, found {value!r}")
    _known(value, _names(Split), where=where)
    named = {name: value.get(name, 0.0) for name in SPLIT_NAMES} if any(n in value for n in SPLIT_NAMES) else {}
    return Split(**{"by": value.get("by", Split.by), **named})


def _entry(value: object, kind: type, base: Path | None, *, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {value!r}")
    _known(value, _names(kind), where=where)
    required = [name for name in ("name", "store") if name in _names(kind)]
    for name in required:
        if name not in value:
            raise ConfigError(f"{where}: `{name}` is missing")
    store = value["store"]
    placed = [_placed(item, base) for item in store] if isinstance(store, list | tuple) else _placed(store, base)
    return {**value, "store": placed}


def _placed(store: StoreLike, base: Path | None) -> StoreLike:
    if base is None or not isinstance(store, str | Path) or is_url(store):
        return store
    return base / store


def _listed(value: object, *, where: str) -> Sequence[object]:
    if value is None:
        return []
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise ConfigError(f"{where}: expected a list, found {value!r}")
    return value


def _known(given: Mapping[str, object], known: Sequence[str], *, where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _check_selection(place: str, stores: Sequence[object], where: object) -> None:
    for store in stores:
        if not isinstance(store, str | Path | Store):
            raise ConfigError(f"{place}: `store` must be the path of a store, or an open one, found {store!r}")
    if where is not None and not isinstance(where, str):
        raise ConfigError(f"{place}: `where` must be an SQL condition over obs, as text, found {where!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
