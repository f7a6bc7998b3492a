"""What is known of inputs that they do not say themselves (floor 4): licence, DOI, release, citation.

Reads one small YAML file; knows names of inputs. Must not know what is in them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from cellmill.errors import ConfigError, NotFoundError, nearest

__all__ = ["ABOUT_KEYS", "About", "read_about"]

ABOUT_KEYS = ("title", "licence", "doi", "release", "citation", "accession", "url")
_FORM = "expected a list `sources:` of entries like {inputs: 'blood*.h5ad', licence: CC-BY-4.0, doi: 10.1000/182}"


@dataclass(frozen=True)
class _Entry:
    patterns: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    def is_of(self, path: Path) -> bool:
        # by name, by the end of the path, or by all of it
        return any(
            fnmatchcase(path.name, pattern)
            or fnmatchcase(str(path), pattern)
            or fnmatchcase(str(path), f"*/{pattern.removeprefix('./')}")
            for pattern in self.patterns
        )


@dataclass(frozen=True)
class About:
    """What a file says about inputs; an input takes the facts of all entries that are of it, later ones over earlier.

    Examples
    --------
    >>> about = About("about.yaml", (_Entry(("*.h5ad",), (("licence", "CC-BY-4.0"),)),))
    >>> about.of(Path("data/blood.h5ad"))
    {'licence': 'CC-BY-4.0'}
    """

    where: str
    entries: tuple[_Entry, ...]

    def of(self, path: Path) -> dict[str, str]:
        """Return what is known of an input, by the keys of `ABOUT_KEYS`; nothing for one that no entry is of."""
        return {key: text for entry in self.entries if entry.is_of(path) for key, text in entry.facts}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> About:
        """Return what `dataclasses.asdict` made plain, also by way of JSON."""
        entries = [
            _Entry(tuple(one["patterns"]), tuple((str(key), str(text)) for key, text in one["facts"]))
            for one in body["entries"]
        ]
        return cls(str(body["where"]), tuple(entries))

    def check(self, paths: Sequence[Path]) -> None:
        """Refuse an entry that is of no input: its licence would be recorded nowhere.

        Raises
        ------
        ConfigError
            Naming the patterns, and the nearest input.
        """
        for entry in self.entries:
            if not any(entry.is_of(path) for path in paths):
                asked = ", ".join(map(repr, entry.patterns))
                raise ConfigError(
                    f"{self.where}: no input is meant by {asked}.{nearest(entry.patterns[0], [p.name for p in paths])} "
                    f"Inputs are, for example, {', '.join(path.name for path in paths[:3])}"
                )


def read_about(path: str | Path) -> About:
    """Read a file that says what inputs are.

    Raises
    ------
    NotFoundError
        When there is no such file.
    ConfigError
        When it is not YAML, or not of the form that `cellmill build --help` names; with the entry and the key.

    Notes
    -----
    ::

        sources:
          - inputs: "blood*.h5ad"        # name, path or pattern; or a list of them
            licence: CC-BY-4.0
            doi: 10.1016/j.cell.2021.04.048
            release: 2024-07-01
            citation: Ren et al., Cell 2021
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"{file}: no such file; --about takes a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML ({' '.join(str(error).split())}); {_FORM}") from None
    listed = content.get("sources") if isinstance(content, dict) else None
    if not isinstance(listed, list) or set(content) != {"sources"}:
        raise ConfigError(f"{file}: {_FORM}")
    return About(str(file), tuple(_entry(one, f"{file}, entry {i}") for i, one in enumerate(listed, start=1)))


def _entry(one: Any, where: str) -> _Entry:
    if not isinstance(one, dict) or "inputs" not in one:
        raise ConfigError(f"{where}: there is no `inputs`; {_FORM}")
    patterns = one["inputs"] if isinstance(one["inputs"], list) else [one["inputs"]]
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ConfigError(f"{where}: `inputs` must be a name or pattern, or a list of them; found {one['inputs']!r}")
    facts = []
    for key, value in one.items():
        if key == "inputs":
            continue
        if key not in ABOUT_KEYS:
            raise ConfigError(
                f"{where}: {key!r} is not known.{nearest(str(key), ABOUT_KEYS)} Known are {', '.join(ABOUT_KEYS)}"
            )
        if (
            not isinstance(value, str | int | float | datetime.date)
            or isinstance(value, bool)
            or not str(value).strip()
        ):
            raise ConfigError(f"{where}: {key} must be text, found {value!r}")
        facts.append((str(key), str(value).strip()))
    return _Entry(tuple(patterns), tuple(facts))
