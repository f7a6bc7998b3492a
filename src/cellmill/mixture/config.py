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
from cellmill.mixture.sets import units_of
from cellmill.storage.urls import is_url
from cellmill.store import Store

__all__ = [
    "Balance",
    "Component",
    "Exclusion",
    "Kind",
    "Op",
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
Op = Literal["add", "replace", "only"]
OnLeak = Literal["remove", "refuse"]

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
    stratify
        A column of obs of which each value ("tissue": each tissue) shall be divided by these shares. The values of `by`
        are then ranked by their keys within the stratum that most of their cells are of, over all cells of the
        components' stores, and cut at the shares: a new donor moves at most those at a cut, more cells only a donor
        whose commonest stratum they change.
    """

    by: str = "donor_id"
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    stratify: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.by, str) or not self.by:
            raise ConfigError(f"split: `by` must name a column of obs, or be 'cell', found {self.by!r}")
        if self.stratify is not None and (not isinstance(self.stratify, str) or not self.stratify):
            raise ConfigError(f"split: `stratify` must name a column of obs, found {self.stratify!r}")
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
        counts; cells of fewer than 50 are alike by chance, and are not asked), or a column of obs ("donor_id",
        "dataset"). Rules apply in this order; a cell counts once.
    on_leak
        "remove" such cells, or "refuse" to plan while there are any.
    """

    store: StoreLike
    where: str | None = None
    by: tuple[str, ...] = ("uid", "fingerprint")
    on_leak: OnLeak = "remove"

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
        _one_of("exclude: on_leak", self.on_leak, get_args(OnLeak))
        _check_selection("exclude", [self.store], self.where)


@dataclass(frozen=True)
class Balance:
    """How often cells of a component are drawn, where not all are drawn alike.

    Parameters
    ----------
    column
        A column of obs whose values are classes; cells without a value are a class of their own.
    temperature
        A class has a share in proportion to its cells to the power of 1 / temperature: 1 as they are, 2 evened out,
        infinity (`.inf` in YAML) the same for all.
    weights
        Shares of the classes instead, up to a factor: a mapping, or the path of a table (.csv, .tsv, .json) of values
        and weights. Each class must be named, or `other` given. A class of weight 0 is never drawn.
    other
        Weight of classes that `weights` does not name.
    cell_weights
        Instead of classes: a column of obs with a weight, 0 or more, of each cell.
    floor
        Least share of each class that is drawn at all.
    max_repeat
        Most draws of one cell in a pass; what a class may not take is shared by the others.
    """

    column: str | None = None
    temperature: float = 1.0
    weights: Mapping[str, float] | str | Path | None = None
    other: float | None = None
    cell_weights: str | None = None
    floor: float = 0.0
    max_repeat: float | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.cell_weights is None):
            raise ConfigError("balance: give `column`, whose values are classes, or `cell_weights`, one of the two")
        for name in ("column", "cell_weights"):
            if (value := getattr(self, name)) is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"balance: {name} must name a column of obs, found {value!r}")
        if self.cell_weights is not None and (self.weights is not None or self.temperature != 1 or self.floor):
            raise ConfigError("balance: temperature, weights and floor are of classes, and go with `column`")
        if self.weights is not None and self.temperature != 1:
            raise ConfigError("balance: give `temperature` or `weights`, not both")
        if not _is_number(self.temperature) or not self.temperature >= 1:
            raise ConfigError(f"balance: temperature must be 1 or more, found {self.temperature!r}")
        if not _is_number(self.floor) or not 0 <= self.floor <= 1:
            raise ConfigError(f"balance: floor must be a share between 0 and 1, found {self.floor!r}")
        if self.max_repeat is not None and not (_is_number(self.max_repeat) and self.max_repeat >= 1):
            raise ConfigError(f"balance: max_repeat must be 1 or more, found {self.max_repeat!r}")
        if self.other is not None and self.weights is None:
            raise ConfigError("balance: `other` is the weight of classes that `weights` does not name; give `weights`")
        if isinstance(self.weights, Mapping):
            for value, weight in self.weights.items():
                check_weight(value, weight, where="balance: weights")
        if self.other is not None:
            check_weight("other", self.other, where="balance")


def check_weight(value: object, weight: object, *, where: str) -> None:
    """Refuse a weight that is none.

    Raises
    ------
    ConfigError
        When it is no number, below 0, or not finite.
    """
    if not _is_number(weight) or not 0 <= float(weight) < float("inf"):  # type: ignore[arg-type]
        raise ConfigError(f"{where}: the weight of {value!r} must be a number, 0 or more, found {weight!r}")


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
        proportion: share of every batch. repeat: times per epoch, 2.5 too. choose: this many of its cells, or a share
        of them ("10%"): nested, a larger choice holds every smaller one.
    evenly
        With choose: as many cells of each value of this column of obs, as far as they have so many.
    sketch
        With choose: a geometric sketch over the coordinates of this file (`cellmill pca`), which takes cells evenly
        over the space that they fill (extra `sketch`). A larger sketch does not hold the smaller ones.
    balance
        How often its cells are drawn; that of the mixture when None.
    op
        Where the mixture has a base: "add" to it, "replace" as many cells of it, or "only" this.
    """

    name: str
    store: StoreLike | list[StoreLike] | tuple[StoreLike, ...]
    where: str | None = None
    split: SplitName | None = None
    proportion: float | None = None
    repeat: float | None = None
    choose: int | str | None = None
    evenly: str | None = None
    sketch: str | Path | None = None
    balance: Balance | Mapping[str, Any] | None = None
    op: Op = "add"

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
        _one_of(f"component {self.name!r}: op", self.op, get_args(Op))
        if isinstance(self.balance, Mapping):
            object.__setattr__(self, "balance", balance_of(self.balance, where=f"component {self.name!r}: balance"))
        self._check_amounts()

    def _check_amounts(self) -> None:
        proportion, repeat, choose = self.proportion, self.repeat, self.choose
        if proportion is not None and not (_is_number(proportion) and 0 < proportion <= 1):
            raise ConfigError(
                f"component {self.name!r}: proportion must be above 0 and at most 1, found {proportion!r}"
            )
        if repeat is not None and not (_is_number(repeat) and 0 < repeat < 1e9):
            raise ConfigError(f"component {self.name!r}: repeat must be a number above 0, found {repeat!r}")
        whole = isinstance(choose, int) and not isinstance(choose, bool) and choose >= 1
        if choose is not None and not whole and self.chosen_share is None:
            raise ConfigError(
                f"component {self.name!r}: choose must be a whole number of cells, or a share of them as '10%', "
                f"found {choose!r}"
            )
        if self.evenly is not None and (choose is None or not isinstance(self.evenly, str)):
            raise ConfigError(
                f"component {self.name!r}: `evenly` names a column of obs and goes with `choose`, which says how many"
            )
        if self.sketch is not None and (choose is None or self.evenly or not isinstance(self.sketch, str | Path)):
            raise ConfigError(
                f"component {self.name!r}: `sketch` names a file of coordinates; it goes with `choose` and not `evenly`"
            )

    @property
    def chosen_share(self) -> float | None:
        """The share of its cells that `choose` asks for, where it is written as a share."""
        if not isinstance(self.choose, str) or not self.choose.endswith("%"):
            return None
        try:
            share = float(self.choose[:-1]) / 100
        except ValueError:
            return None
        return share if 0 < share <= 1 else None

    def n_chosen(self, n_cells: int) -> int | None:
        """Return how many of so many cells `choose` asks for; None without it."""
        share = self.chosen_share
        if share is not None:
            return max(1, round(share * n_cells))
        return None if self.choose is None else int(self.choose)

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
    plain = ("name", "seed", "dedupe", "cells", "draws", "ladder")
    known = (*plain, "split", "exclude", "balance", "units", "base", "components")
    _known(content, known, where=where)
    if not content.get("components"):
        raise ConfigError(f"{where}: `components` is empty; a mixture needs at least one")
    arguments = {key: value for key, value in content.items() if key in plain}
    if content.get("split") is not None:
        arguments["split"] = _split(content["split"], where=f"{where}: split")
    if content.get("balance") is not None:
        arguments["balance"] = balance_of(content["balance"], where=f"{where}: balance", base=base)
    if content.get("units") is not None:
        arguments["units"] = units_of(content["units"], where=f"{where}: units")
    if (other := content.get("base")) is not None:
        arguments["base"] = base / other if base is not None and isinstance(other, str | Path) else other
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
    return Split(**{"by": value.get("by", Split.by), "stratify": value.get("stratify"), **named})


def balance_of(value: object, *, where: str, base: Path | None = None) -> Balance:
    """Return a balance from a mapping as YAML gives it; the path of a table begins at `base`.

    Raises
    ------
    ConfigError
        For unknown keys and values that cannot be meant.
    """
    if isinstance(value, Balance):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected {{column: cell_type, temperature: 2, ...}}, found {value!r}")
    _known(value, _names(Balance), where=where)
    weights = value.get("weights")
    if isinstance(weights, str) and base is not None:
        return Balance(**{**value, "weights": base / weights})
    return Balance(**value)


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
    balance = value.get("balance")
    more: dict[str, Any] = (
        {} if balance is None else {"balance": balance_of(balance, where=f"{where}: balance", base=base)}
    )
    if isinstance(value.get("sketch"), str) and base is not None:
        more["sketch"] = base / value["sketch"]
    return {**value, "store": placed, **more}


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


def _one_of(what: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{what} must be one of {', '.join(known)}, found {value!r}.{nearest(str(value), known)}")


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
