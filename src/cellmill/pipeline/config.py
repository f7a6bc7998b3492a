"""The experiment file (floor 8): what a YAML file may say, checked in full before anything runs.

Knows the words of an experiment and their bounds; knows nothing of how a stage does its work, and reads no file but
that one. Every problem of it is told at once, each with its line. Relative paths are meant from the folder of the file.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cellmill.errors import ConfigError, nearest
from cellmill.pipeline.yamlplace import Place, read_yaml
from cellmill.storage.urls import UrlPath, checked_url, is_url

__all__ = [
    "ArmConfig",
    "ComponentConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExclusionConfig",
    "ExperimentConfig",
    "HvgConfig",
    "MeasureConfig",
    "ModelConfig",
    "ReportConfig",
    "SimulateConfig",
    "SplitConfig",
    "TrainConfig",
    "load_experiment",
    "parse_experiment",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NAME_RULE = "letters, digits and . _ + - only, beginning with a letter or digit"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class SimulateConfig(_Frozen):
    """A simulated atlas in place of files: three studies, six cell types, two tissues."""

    n_cells: int = Field(default=3000, ge=60)
    n_genes: int = Field(default=20_000, ge=200)
    n_studies: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)


class DataConfig(_Frozen):
    """Where the cells come from: input files, a simulation, or a store that exists."""

    store: Path | None = None
    inputs: tuple[str, ...] = ()
    simulate: SimulateConfig | None = None
    vocabulary: str | None = None
    min_match: float = Field(default=0.6, gt=0, le=1)
    counts: str = "X"
    rename: dict[str, str] = {}
    skip_bad: bool = False

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> DataConfig:
        if self.inputs and self.simulate is not None:
            raise ValueError("give either inputs or simulate, not both")
        if not self.inputs and self.simulate is None and self.store is None:
            raise ValueError("say where the cells come from: inputs (files), simulate, or store (one that exists)")
        return self


class SplitConfig(_Frozen):
    """How cells are divided into training, validation and test; by the hash of a column's value."""

    by: str = "donor_id"
    train: float = Field(default=0.8, ge=0, le=1)
    validation: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _shares_add_up(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(f"train + validation + test must be above 0 and at most 1, not {total:g}")
        return self


SplitName = Literal["train", "validation", "test", "all"]


class EvaluationConfig(_Frozen):
    """One set of cells that every model is evaluated on and none is trained on.

    With a `split` its cells are those that the split sets aside. Without one, the cells that `where` takes are excluded
    from all training, with their duplicates and with all that share the split's column with them (their donors).
    """

    name: str
    where: str | None = None
    split: SplitName | None = None
    store: Path | None = None
    cell_type: str | None = "cell_type"
    note: str = ""


class ComponentConfig(_Frozen):
    """One named part of an arm, with exactly one of proportion, repeat, choose (default: repeat 1)."""

    name: str
    store: Path | None = None
    where: str | None = None
    split: SplitName | None = None
    proportion: float | None = Field(default=None, gt=0)
    repeat: float | None = Field(default=None, gt=0)
    choose: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_quota(self) -> ComponentConfig:
        given = [word for word in ("proportion", "repeat", "choose") if getattr(self, word) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of proportion, repeat, choose, not {' and '.join(given)}")
        return self


class ExclusionConfig(_Frozen):
    """Cells that no training may see, and by which of their marks they are recognised."""

    store: Path | None = None
    where: str | None = None
    by: tuple[str, ...] = ("uid", "fingerprint")


class ArmConfig(_Frozen):
    """What one model is trained on."""

    components: tuple[ComponentConfig, ...] = Field(min_length=1)
    exclude: tuple[ExclusionConfig, ...] = ()
    dedupe: bool = False
    cells: int | None = Field(default=None, ge=1)
    draws: int | None = Field(default=None, ge=1)

    @field_validator("components")
    @classmethod
    def _names_differ(cls, components: tuple[ComponentConfig, ...]) -> tuple[ComponentConfig, ...]:
        names = [component.name for component in components]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two components have the name {twice[0]!r}")
        return components


class ModelConfig(_Frozen):
    """The model of every arm: a variational autoencoder with a linear decoder (LDVAE)."""

    kind: Literal["ldvae"] = "ldvae"
    n_latent: int = Field(default=10, ge=1)
    n_hidden: int = Field(default=128, ge=1)
    n_layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    likelihood: Literal["nb", "zinb", "poisson"] = "nb"


class HvgConfig(_Frozen):
    """The `hvg` most variable genes of the training cells."""

    hvg: int = Field(ge=10)


class TrainConfig(_Frozen):
    """How each arm is trained, the same for all."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=128, ge=2)
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    kl_warmup_epochs: int = Field(default=400, ge=1)
    validation_every: int = Field(default=10, ge=1)
    genes: Literal["all"] | HvgConfig | tuple[str, ...] = "all"

    @field_validator("genes", mode="wrap")
    @classmethod
    def _genes(cls, value: object, handler: Any) -> object:
        if value == "all":
            return "all"
        if isinstance(value, Mapping):
            return HvgConfig.model_validate(dict(value))
        if isinstance(value, HvgConfig) or (isinstance(value, list | tuple) and value):
            return handler(value)
        raise ValueError("genes must be all, {hvg: N}, or a list of gene ids")


class ReportConfig(_Frozen):
    """What the report is called and which arms the others are compared with."""

    title: str = ""
    note: str = ""
    base: str | None = None
    control: str | None = None
    next_command: str = ""


class MeasureConfig(_Frozen):
    """Over which genes accuracy is measured: the `hvg` most variable of the model's genes, the same for all arms."""

    hvg: int = Field(default=1000, ge=10)


class ExperimentConfig(_Frozen):
    """A whole experiment: data, arms, seeds, model, training, evaluation sets, report."""

    name: str
    out: Path | None = None
    seed: int = Field(default=0, ge=0)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    data: DataConfig
    split: SplitConfig | None = None
    evaluation: tuple[EvaluationConfig, ...] = Field(min_length=1)
    arms: dict[str, ArmConfig] = Field(min_length=1)
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    measure: MeasureConfig = MeasureConfig()
    report: ReportConfig = ReportConfig()

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds must be different whole numbers from 0 on, not {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _names_hold_together(self) -> ExperimentConfig:
        problems = [f"the arm name {arm!r} needs {_NAME_RULE}" for arm in self.arms if not _NAME.fullmatch(arm)]
        if not _NAME.fullmatch(self.name):
            problems.append(f"the experiment name {self.name!r} needs {_NAME_RULE}")
        sets = [one.name for one in self.evaluation]
        problems += [
            f"two evaluation sets have the name {name!r}" for name in sorted({n for n in sets if sets.count(n) > 1})
        ]
        for word in ("base", "control"):
            arm = getattr(self.report, word)
            if arm is not None and arm not in self.arms:
                problems.append(f"report.{word} names the arm {arm!r}, which there is not.{nearest(arm, self.arms)}")
        problems += self._leaks()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _leaks(self) -> list[str]:
        """Return what would let a model train on cells that it is evaluated on."""
        if self.split is None:
            named = [c.name for arm in self.arms.values() for c in arm.components if c.split]
            named += [one.name for one in self.evaluation if one.split]
            return [f"{name!r} names a split, but the file has no split section" for name in sorted(set(named))]
        tested = {one.split for one in self.evaluation if one.split} | {"all"}
        return [
            f"component {component.name!r} of arm {arm!r} trains on {component.split!r}, and with it on evaluated cells"
            for arm, config in self.arms.items()
            for component in config.components
            if component.split in tested and len(tested) > 1
        ]

    @property
    def base_arm(self) -> str:
        """The arm that the others are compared with: `report.base`, or the first."""
        return self.report.base or next(iter(self.arms))


def load_experiment(path: str | Path) -> ExperimentConfig:
    """Return the experiment that the YAML file at `path` describes, its paths made absolute.

    Parameters
    ----------
    path : str or Path
        The YAML file. Relative paths in it are meant from its folder; `out` is `runs/NAME` beside it when not given.

    Raises
    ------
    NotFoundError
        When there is no such file.
    ConfigError
        With every problem of the file, each with its line; an unknown key with the nearest known one.
    """
    document = read_yaml(Path(path))
    return parse_experiment(
        document.content,
        base=Path(path).absolute().parent,
        place_of=lambda place: f"{document.path}, line {document.line(place)}",
    )


def parse_experiment(
    content: object, *, base: Path, place_of: typing.Callable[[Place], str] = lambda place: "experiment"
) -> ExperimentConfig:
    """Return the experiment that `content`, a mapping as read from YAML, describes; its paths are meant from `base`.

    Raises
    ------
    ConfigError
        With every problem, each with its place.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{place_of(())}: an experiment is a mapping with the keys {', '.join(ExperimentConfig.model_fields)}; "
            f"found {type(content).__name__}."
        )
    try:
        config = ExperimentConfig.model_validate(dict(content))
    except ValidationError as error:
        raise ConfigError(_problems_text(error, place_of)) from None
    return _absolute(config, base)


def _problems_text(error: ValidationError, place_of: typing.Callable[[Place], str]) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        place: Place = tuple(problem["loc"])
        inside = any(len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in problems)
        if problem["type"] == "too_short" and inside:
            continue  # its entries are there and wrong, which is said already
        lines.append(f"{place_of(place)}: {_problem_text(place, problem)}")
    return "\n".join(lines)


def _problem_text(place: Place, problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        known = _known_keys(ExperimentConfig, place[:-1])
        return (
            f"unknown key {place[-1]!r}{_inside(place[:-1])}.{nearest(str(place[-1]), known)} "
            f"Known here: {', '.join(known)}."
        )
    if problem["type"] == "missing":
        return f"the key {place[-1]!r}{_inside(place[:-1])} is missing."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "too_short":
        message = f"expected at least {problem['ctx']['min_length']} entry, found {problem['ctx']['actual_length']}"
    found = "" if isinstance(problem["input"], Mapping | list | tuple | BaseModel) else f" (found {problem['input']!r})"
    return f"{_place_text(place)}: {message}{found}" if place else f"{message}{found}"


def _place_text(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _inside(place: Place) -> str:
    return f" in {_place_text(place)}" if place else ""


def _known_keys(annotation: object, place: Place) -> list[str]:
    """Return the keys that are known at `place` under a model or a container of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not place:
            return list(annotation.model_fields)
        field = annotation.model_fields.get(str(place[0]))
        return _known_keys(field.annotation, place[1:]) if field else []
    inner = [one for one in typing.get_args(annotation) if one is not type(None) and one is not Ellipsis]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        found = [keys for one in inner if (keys := _known_keys(one, place))]
        return found[0] if found else []
    return _known_keys(inner[-1], place[1:]) if inner and place else []


def _absolute(config: ExperimentConfig, base: Path) -> ExperimentConfig:
    """Return the same experiment with every path absolute and every default filled in."""
    out = _from(base, config.out or Path("runs") / config.name)
    data = config.data.model_copy(
        update={
            "store": _from(base, config.data.store) if config.data.store else out / "atlas.mill",
            "inputs": tuple(str(_from(base, Path(one))) for one in config.data.inputs),
            "vocabulary": _vocabulary(config.data.vocabulary, base),
        }
    )
    evaluation = tuple(
        one.model_copy(update={"store": _from(base, one.store) if one.store else None}) for one in config.evaluation
    )
    arms = {name: _absolute_arm(arm, base, split=config.split is not None) for name, arm in config.arms.items()}
    return config.model_copy(update={"out": out, "data": data, "evaluation": evaluation, "arms": arms})


def _absolute_arm(arm: ArmConfig, base: Path, *, split: bool) -> ArmConfig:
    def of(component: ComponentConfig) -> ComponentConfig:
        store = _from(base, component.store) if component.store else None
        return component.model_copy(update={"store": store, "split": component.split or ("train" if split else None)})

    exclude = tuple(
        one.model_copy(update={"store": _from(base, one.store) if one.store else None}) for one in arm.exclude
    )
    return arm.model_copy(update={"components": tuple(of(c) for c in arm.components), "exclude": exclude})


def _vocabulary(name: str | None, base: Path) -> str | None:
    """A vocabulary is a name (human, mouse, union) or the path of a JSON file."""
    if name is None or not name.endswith(".json"):
        return name
    return str(_from(base, Path(name)))


def _from(base: Path, path: Path) -> Path:
    if is_url(path):
        return UrlPath(checked_url(path))
    return Path(os.path.abspath(base / path.expanduser()))  # noqa: PTH100 -- links are kept: a link's name is the data set's
