"""The mapping file (floor 4): what an author's columns are called in the common schema, checked before a file is read.

Knows YAML and what may be said in it; `cellmill.ingest.obs_mapping` does to a table of cells what it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cellmill.errors import ConfigError, NotFoundError, nearest
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS

__all__ = [
    "COMMON_COLUMNS",
    "ONTOLOGY_SUFFIX",
    "RESERVED_COLUMNS",
    "ColumnRule",
    "ObsMap",
    "SourceRule",
    "read_obs_map",
]

# columns that collections share, as CELLxGENE's schema names them, and those of perturbation data
COMMON_COLUMNS = (
    "cell_type", "tissue", "tissue_type", "disease", "donor_id", "assay", "sex", "development_stage",
    "self_reported_ethnicity", "organism", "dataset_id", "suspension_type", "is_primary_data", "perturbation",
    "perturbation_type", "dose", "time", "cell_line", "batch", "sample_id", "study",
)  # fmt: skip
# made by cellmill itself: nothing else can be called so
RESERVED_COLUMNS = frozenset({*STANDARD_COLUMNS, *FACT_COLUMNS, "row", "duplicate_of", "n_copies"})
ONTOLOGY_SUFFIX = "_ontology_term_id"
ColumnType = Literal["bool", "int32", "int64", "uint64", "float32", "float64", "string", "category"]
Scalar = bool | int | float | str
_TERM = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*:[A-Za-z0-9_.-]+|unknown|na|multiethnic)")
_SEPARATOR = re.compile(r"\s*(?:\|\||,)\s*")


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class ColumnRule(_Checked):
    """What one column of the store is made of.

    Attributes
    ----------
    from_column : str or None
        Column of the file; the column's own name where neither this nor `constant` is said.
    constant : scalar or None
        One value for all cells.
    values : dict or None
        Old value, as text, to new value; null for none.
    others : {"keep", "null", "error"}
        What becomes of values that `values` does not name.
    type : str or None
        Type of the column; each value must be one of it.
    ontology : str, dict or None
        Ontology term of all cells, or of each (new) value: fills COLUMN_ontology_term_id.
    optional : bool
        Whether files may lack the column.
    """

    from_column: str | None = Field(default=None, alias="from", min_length=1)
    constant: Scalar | None = None
    values: dict[str, Scalar | None] | None = None
    others: Literal["keep", "null", "error"] = "keep"
    type: ColumnType | None = None
    ontology: str | dict[str, str] | None = None
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """`donor_id: Donor` is short for `donor_id: {from: Donor}`."""
        return {"from": given} if isinstance(given, str) else given

    @field_validator("others", mode="before")
    @classmethod
    def _null(cls, others: Any) -> Any:
        return "null" if others is None else others  # YAML's null is no text

    @field_validator("ontology")
    @classmethod
    def _terms(cls, ontology: str | dict[str, str] | None) -> str | dict[str, str] | None:
        terms = [ontology] if isinstance(ontology, str) else list((ontology or {}).values())
        for term in terms:
            if not all(_TERM.fullmatch(part) for part in _SEPARATOR.split(term)):
                raise ValueError(f"an ontology term looks like CL:0000084, found {term!r}")
        return ontology

    @model_validator(mode="after")
    def _one_origin(self) -> ColumnRule:
        if self.constant is not None and self.from_column is not None:
            raise ValueError("`from` and `constant` exclude each other: values come from the file or are all the same")
        if self.constant is not None and self.values is not None:
            raise ValueError("`values` maps what the file says; with `constant`, say the new value itself")
        if self.others != "keep" and self.values is None:
            raise ValueError("`others` is about values that `values` does not name, and there is no `values`")
        return self


class SourceRule(_Checked):
    """What is done to the inputs whose name or path fits a pattern.

    Attributes
    ----------
    match : str or list of str
        Patterns such as "GSE123*.h5ad" or "lab/*"; compared from the end of the path.
    dataset : str or None
        Name of the dataset, of which uids are made; "{name}" stands for the name it would have had.
    columns : dict
        By column of the store.
    """

    match: str | tuple[str, ...]
    dataset: str | None = Field(default=None, min_length=1)
    columns: dict[str, ColumnRule] = Field(default_factory=dict)

    @field_validator("match", mode="before")
    @classmethod
    def _listed(cls, match: Any) -> Any:
        return tuple(match) if isinstance(match, list) else match

    @field_validator("columns")
    @classmethod
    def _targets(cls, columns: dict[str, ColumnRule]) -> dict[str, ColumnRule]:
        seen: dict[str, str] = {}
        for name in columns:
            if not name or name.casefold() in RESERVED_COLUMNS:
                raise ValueError(f"{name!r} is made by cellmill itself and cannot be mapped to; take another name")
            if name.casefold() in seen:
                raise ValueError(f"{seen[name.casefold()]!r} and {name!r} are one column: SQL does not tell case")
            seen[name.casefold()] = name
        return columns

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, also where there is one."""
        return (self.match,) if isinstance(self.match, str) else self.match

    def fits(self, path: Path) -> bool:
        """Whether an input is meant."""
        absolute = path.absolute()
        return any(absolute.match(pattern) for pattern in self.patterns)


class ObsMap(_Checked):
    """A mapping file: rules for sources, in order; of several that name a column of one source, the last counts."""

    sources: tuple[SourceRule, ...]

    @field_validator("sources", mode="before")
    @classmethod
    def _listed(cls, sources: Any) -> Any:
        return tuple(sources) if isinstance(sources, list) else sources

    def rules_for(self, path: Path) -> dict[str, ColumnRule]:
        """Return the rule of each column that is made for an input."""
        found: dict[str, ColumnRule] = {}
        for source in self.sources:
            if source.fits(path):
                for name, rule in source.columns.items():
                    found = {old: kept for old, kept in found.items() if old.casefold() != name.casefold()}
                    found[name] = rule
        return found

    def dataset_of(self, path: Path, name: str) -> str | None:
        """Return the name that the dataset of an input is given; None where it keeps its own."""
        given = [source.dataset for source in self.sources if source.dataset and source.fits(path)]
        return given[-1].replace("{name}", name) if given else None

    def unused(self, paths: list[Path]) -> list[str]:
        """Return the patterns of the sources that fit none of the inputs."""
        return [", ".join(s.patterns) for s in self.sources if not any(s.fits(path) for path in paths)]

    def to_plain(self) -> dict[str, Any]:
        """Return the mapping as plain data, which `of` reads."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @classmethod
    def of(cls, given: Mapping[str, Any] | str | Path | ObsMap | None) -> ObsMap | None:
        """Return a mapping from its file, or from the same as plain data.

        Raises
        ------
        ConfigError
            Naming the place, what was found and what is known.
        """
        if given is None or isinstance(given, ObsMap):
            return given
        if isinstance(given, Mapping):
            return _validated(dict(given), where="obs_map")
        return read_obs_map(given)


def read_obs_map(path: str | Path) -> ObsMap:
    """Read a mapping file.

    Raises
    ------
    NotFoundError
        When there is none.
    ConfigError
        When it is not YAML, or says what cannot be meant: names the place and what is known.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{file}: no such file. Give the path of a mapping file (--obs-map)") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ConfigError(f"{file}: not a text file; a mapping file is YAML") from None
    try:
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{file}{where}: this is not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping with the key `sources`, found {type(content).__name__}")
    return _validated(content, where=str(file))


class _Loader(yaml.SafeLoader):
    """YAML whose keys are texts as they are written: `values: {1: male, no: ...}` names the values "1" and "no"."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
            if key_node.value in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands here a second time", key_node.start_mark
                )
            found[key_node.value] = self.construct_object(value_node, deep=True)
        return found


def _validated(content: Mapping[str, Any], *, where: str) -> ObsMap:
    try:
        return ObsMap.model_validate(content)
    except ValidationError as error:
        lines = dict.fromkeys(_line_of(problem) for problem in error.errors())
        raise ConfigError(f"{where}: " + "\n".join(lines)) from None


def _line_of(problem: Any) -> str:
    place = [part for part in problem["loc"] if part not in _UNION_BRANCHES]
    at = ".".join(str(part) for part in place)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(place)
        return f"{at}: there is no key {place[-1]!r}.{nearest(str(place[-1]), known)} Known: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{at}: missing. Known here: {', '.join(_keys_at(place))}"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem.get("input")
    shown = f"; found {found!r}" if isinstance(found, bool | int | float | str) and repr(found) not in message else ""
    if problem["type"] == "literal_error" and place[-1] == "type" and isinstance(found, str):
        shown += f".{nearest(found, get_args(ColumnType))}"
    return f"{at or 'the file'}: {message}{shown}"


# pydantic names the branches of unions in the places of errors
_UNION_BRANCHES = frozenset({"bool", "int", "float", "str", "tuple[str, ...]", "dict[str,str]"})


def _keys_at(place: list[Any]) -> list[str]:
    models: dict[int, type[BaseModel]] = {1: ObsMap, 3: SourceRule}
    model = models.get(len(place), ColumnRule)
    return [field.alias or name for name, field in model.model_fields.items()]
