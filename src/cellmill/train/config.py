"""What a training run is told (floor 7): a frozen, checked configuration, also from YAML.

Knows words and their bounds; opens no store and imports no torch of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cellmill.errors import ConfigError, NotFoundError, nearest
from cellmill.mixture import Mixture, Plan
from cellmill.models import LdvaeConfig

__all__ = ["HvgGenes", "RunConfig", "RunSeeds", "parse_run"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class RunSeeds(_Frozen):
    """The seeds of a run.

    Attributes
    ----------
    data : int or None
        Seed of the mixture's choices, for a mixture given as a mapping without a seed of its own.
    init : int
        First weights, dropout and draws from the posterior.
    order : int
        Order of the cells.
    """

    data: int | None = Field(default=None, ge=0, lt=2**63)
    init: int = Field(default=0, ge=0, lt=2**63)
    order: int = Field(default=0, ge=0, lt=2**63)


class HvgGenes(_Frozen):
    """The `hvg` most variable genes of the training cells, and of no other cells."""

    hvg: int = Field(ge=1)


class RunConfig(_Frozen):
    """One training run.

    Attributes
    ----------
    out : Path
        The run folder.
    mixture : mapping, path, Mixture or Plan
        What to train on; a mapping as in mix.yaml.
    validation : "auto", None, or as `mixture`
        What to measure the loss on. "auto": the validation split of the mixture's own components, when it has a split.
    model : LdvaeConfig
    genes : "all", {"hvg": N}, or gene ids
        "all" with several stores: the genes that every one of them has.
    epochs : int
        Passes of the plan.
    batch_size : int
    lr, weight_decay : float
        Of Adam (eps 0.01, as scvi-tools has it).
    kl_warmup_epochs : int
        Epochs over which the weight of KL(z) grows from 0 to 1.
    validation_every : int
        Epochs between measurements on the validation cells; the last epoch is always measured.
    seeds : RunSeeds
        Or `seed: n` for init and order alike.
    describe : tuple of str
        Columns of obs whose labels the run's composition is counted by.
    name : str
        For reports; the folder's name when empty.
    """

    out: Path
    mixture: Mapping[str, Any] | Path | Mixture | Plan
    validation: Literal["auto"] | Mapping[str, Any] | Path | Mixture | Plan | None = "auto"
    model: LdvaeConfig = LdvaeConfig()
    genes: Literal["all"] | HvgGenes | tuple[str, ...] = "all"
    epochs: int = Field(default=250, ge=1)
    batch_size: int = Field(default=128, ge=2)
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    kl_warmup_epochs: int = Field(default=400, ge=1)
    validation_every: int = Field(default=10, ge=1)
    seeds: RunSeeds = RunSeeds()
    describe: tuple[str, ...] = ("dataset", "cell_type")
    name: str = ""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(_problems_text(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _one_seed_for_all(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "seed" not in given:
            return given
        if "seeds" in given:
            raise ValueError("give either seed or seeds, not both")
        rest = {key: value for key, value in given.items() if key != "seed"}
        return {**rest, "seeds": {"init": given["seed"], "order": given["seed"]}}

    @field_validator("genes")
    @classmethod
    def _some_genes_each_once(cls, genes: Any) -> Any:
        if isinstance(genes, tuple):
            if not genes:
                raise ValueError("genes is an empty list; leave it out for all genes")
            if len(set(genes)) != len(genes):
                raise ValueError("genes names a gene twice")
        return genes

    @property
    def title(self) -> str:
        """The name, or that of the folder."""
        return self.name or self.out.name

    @classmethod
    def from_yaml(cls, path: str | Path) -> RunConfig:
        """Return the run that a YAML file describes; relative paths in it are meant from its folder.

        Raises
        ------
        NotFoundError
            When there is no such file.
        ConfigError
            For what is not YAML, unknown keys (with the nearest known one), and values that cannot be meant.
        """
        file = Path(path)
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"{file}: no such file. Give the path of a run's YAML file.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: this is not valid YAML: {error}") from None
        try:
            return parse_run(content, base=file.absolute().parent)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None


def parse_run(content: object, *, base: Path) -> RunConfig:
    """Return the run that a mapping describes; relative paths in it are meant from `base`.

    Raises
    ------
    ConfigError
        For unknown keys and for values that cannot be meant, all at once.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"a run is a mapping with at least `out` and `mixture`; found {type(content).__name__}")
    given = dict(content)
    for key in ("mixture", "validation"):
        value = given.get(key)
        if isinstance(value, Mapping):
            given[key] = _absolute_stores(value, base)
        elif isinstance(value, str) and value != "auto":
            given[key] = base / value
    if isinstance(given.get("out"), str):
        given["out"] = base / given["out"]
    return RunConfig(**given)


def _absolute_stores(mixture: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the mixture with its stores as absolute paths, so that it means the same from everywhere."""

    def placed(store: Any) -> Any:
        if isinstance(store, list):
            return [placed(one) for one in store]
        return str(base / store) if isinstance(store, str) and "://" not in store else store

    result = dict(mixture)
    for key in ("components", "exclude"):
        entries = mixture.get(key)
        if isinstance(entries, list):
            result[key] = [
                {**entry, "store": placed(entry["store"])} if isinstance(entry, Mapping) and "store" in entry else entry
                for entry in entries
            ]
    return result


def _problems_text(error: ValidationError) -> str:
    """Return every problem once, in one line each; the alternatives of a union are one problem."""
    said: dict[str, str] = {}
    for problem in error.errors():
        place = problem["loc"]
        if problem["type"] == "extra_forbidden":
            known = _known_keys(place[:-1])
            said[".".join(map(str, place))] = (
                f"unknown key {place[-1]!r}.{nearest(str(place[-1]), known)} Known: {', '.join(known)}"
            )
        elif problem["type"] == "missing":
            said[".".join(map(str, place))] = f"the key {place[-1]!r} is missing"
        else:
            key = str(place[0]) if place else ""
            message = str(problem["msg"]).removeprefix("Value error, ")
            text = _EXPECTED.get(key, message)
            found = f" (found {problem['input']!r})" if place and not isinstance(problem["input"], Mapping) else ""
            name = key if key in _EXPECTED else ".".join(map(str, place))
            said.setdefault(name, f"{name}: {text}{found}" if name else text)
    return "; ".join(said.values())


_EXPECTED = {
    "mixture": "expected a mapping as in mix.yaml, a path to one, a Mixture or a Plan",
    "validation": "expected auto, null, or a mixture as a mapping, path, Mixture or Plan",
}


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    inner: dict[str, type[BaseModel]] = {"model": LdvaeConfig, "seeds": RunSeeds, "genes": HvgGenes}
    model = inner.get(str(place[0]), RunConfig) if place else RunConfig
    return [*model.model_fields, *(["seed"] if model is RunConfig else [])]
