"""Options of recipes as they are given on the command line and in YAML: tables and vocabularies by their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from cellmill.cli.number_table import read_number_table
from cellmill.errors import ConfigError, NotFoundError
from cellmill.genes import Vocabulary

__all__ = ["TABLES", "recipe_options"]

# options that take a number for each gene
TABLES = frozenset({"medians", "means", "token_of", "rows", "chromosomes", "starts", "embedding"})


def recipe_options(recipe: str, file: Path | None, given: Sequence[str]) -> dict[str, Any]:
    """Return the options of a recipe, by its name: those of a YAML file, and NAME=VALUE, which go before them.

    A table (`medians`, `rows`, ...) may be the path of a file, and so may `vocabulary`; `context` is a list of
    mappings, each with `column` and `tokens`, or with `edges` and `first` for a depth token.

    Raises
    ------
    ConfigError
        For what is no option, no YAML, or no mapping.
    NotFoundError
        For a file that is not there.
    """
    from cellmill.tokens.registry import check_options  # torch is imported there

    options = _of_file(file) if file is not None else {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE, such as --set max_length=600; found {one!r}")
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {name}: {value!r} is no value of YAML") from None
    check_options(recipe, options)  # before files are read that the recipe has no use for
    made = {name: _READ[name](value) if name in _READ else value for name, value in options.items()}
    return {name: _table(value) if name in TABLES else value for name, value in made.items()}


def _of_file(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: there is no such file; --options takes a YAML file of a recipe's options"
        ) from None
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{path}: must hold options by name, such as `max_length: 600`; found {type(found).__name__}")
    return dict(found)


def _table(value: Any) -> Any:
    return read_number_table(value) if isinstance(value, str) else value


def _vocabulary(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if Path(value).suffix.lower() not in (".pkl", ".pickle"):
        return Vocabulary.load(value)
    table = read_number_table(value)  # as Geneformer's tokens are published
    if not isinstance(table, dict):
        raise ConfigError(f"{value}: a vocabulary is a mapping of gene to token")
    return Vocabulary.from_json(table)


def _context(value: Any) -> Any:
    from cellmill.tokens import Context, Depth

    def one(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        kind = Depth if "edges" in given else Context
        try:
            return kind(**given)
        except TypeError as error:
            raise ConfigError(
                "context takes mappings of column and tokens (and missing), or of edges and first; found "
                f"{dict(given)}: {error}"
            ) from None

    return tuple(one(given) for given in value) if isinstance(value, (list, tuple)) else value


_READ: Mapping[str, Callable[[Any], Any]] = MappingProxyType({"vocabulary": _vocabulary, "context": _context})
