"""YAML with places (floor 8): which line of the file says what, so that an error can point at it.

Knows YAML and nothing of experiments. Refuses a key that is written twice in one mapping, where YAML would silently
keep the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cellmill.errors import ConfigError, NotFoundError

__all__ = ["Place", "YamlFile", "read_yaml"]

Place = tuple[str | int, ...]


class YamlFile:
    """A YAML document that knows where in the file each of its values stands.

    Attributes
    ----------
    path : Path
    content : object
        What the document says, as plain dicts, lists and scalars.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.content: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise ConfigError(f"{path}{where}: this is not valid YAML: {problem}") from None
        self._lines: dict[Place, int] = {}
        if node is not None:
            self._index(node, ())

    def line(self, place: Sequence[str | int]) -> int:
        """Return the line, from 1, of the key or item at `place`, or of the nearest thing around it."""
        parts = tuple(place)
        while parts not in self._lines and parts:
            parts = parts[:-1]
        return self._lines.get(parts, 1)

    def _index(self, node: yaml.Node, place: Place) -> None:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.start_mark)
                line = key_node.start_mark.line + 1
                inner = (*place, key)
                if inner in self._lines:
                    raise ConfigError(
                        f"{self.path}, line {line}: the key {key!r} stands here a second time; "
                        f"the first is in line {self._lines[inner]}. Keep one of them."
                    )
                self._lines[inner] = line
                self._index(value_node, inner)
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self._index(item, (*place, i))


def read_yaml(path: Path) -> YamlFile:
    """Return the YAML document at `path`.

    Raises
    ------
    NotFoundError
        When there is no such file.
    ConfigError
        When it is not valid YAML, not text, or says a key twice; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file. Give the path of an experiment's YAML file.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a folder; give the path of an experiment's YAML file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not a text file (byte {error.start} is not UTF-8).") from None
    return YamlFile(path, text)
