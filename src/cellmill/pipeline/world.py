"""What an experiment finds (floor 8): the contents of its input files and stores, as hashes.

Reads files; decides nothing. A file is read in full once and then again only when its size or its time has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cellmill.events import emit
from cellmill.pipeline.config import ExperimentConfig
from cellmill.sources import expand_inputs
from cellmill.sources.archive import file_behind
from cellmill.sources.files import files_of
from cellmill.storage import hash_bytes, hash_file, write_atomic
from cellmill.store import open_store

__all__ = ["input_files", "read_facts"]

_CACHE_NAME = "input-hashes.json"


def read_facts(config: ExperimentConfig, *, cache_folder: Path) -> dict[str, str]:
    """Return the hashes that `plan_stages` needs.

    Raises
    ------
    NotFoundError
        When an input, a vocabulary or a store that should exist does not.
    """
    facts: dict[str, str] = {}
    cache = _HashCache(cache_folder / _CACHE_NAME)
    for path in input_files(config):
        facts[f"input:{path.parent.name}/{path.name}"] = cache.hash_of(path)
    vocabulary = config.data.vocabulary
    if vocabulary is not None and vocabulary.endswith(".json"):
        facts[vocabulary] = cache.hash_of(Path(vocabulary))
    for store in _foreign_stores(config):
        facts[str(store)] = open_store(store).digest
    cache.save()
    return facts


def input_files(config: ExperimentConfig) -> list[Path]:
    """Return every input file and folder of an experiment that reads files, each once; else none."""
    if not config.data.inputs:
        return []
    return expand_inputs(list(config.data.inputs), keep_unusable=config.data.skip_bad)


def _foreign_stores(config: ExperimentConfig) -> list[Path]:
    """The stores that are read and not built by this experiment."""
    named: list[Path | None] = [one.store for one in config.evaluation]
    for arm in config.arms.values():
        named += [one.store for one in arm.components]
        named += [one.store for one in arm.exclude]
    built = bool(config.data.inputs) or config.data.simulate is not None
    own = config.data.store
    stores = {store for store in named if store is not None and not (built and store == own)}
    return sorted(stores if built or own is None else {*stores, own})


class _HashCache:
    """Hashes of files by size and time, in one JSON file; losing it costs time and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._known: dict[str, list[str]] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}
        self._used: dict[str, list[str]] = {}
        self._read_now: dict[Path, str] = {}

    def hash_of(self, path: Path) -> str:
        """Return the xxh3-128 of a file or folder and of what lies beside it and is read with it, as labels are."""
        own = [path] if path.exists() else [file_behind(path)]
        parts = [*own, *sorted(file for file in files_of(path) if not any(file.is_relative_to(one) for one in own))]
        stamp = hash_bytes(_stamp(parts).encode())
        known = self._known.get(str(path))
        if known is None or known[0] != stamp:
            emit(f"hashing {path.name}")
            known = [stamp, hash_bytes(" ".join(self._read(part) for part in parts).encode())]
        self._used[str(path)] = known
        return known[1]

    def _read(self, part: Path) -> str:
        if part not in self._read_now:  # of a folder of matrices, each file belongs to every one of them
            self._read_now[part] = hash_file(part)
        return self._read_now[part]

    def save(self) -> None:
        """Keep what was found out, when it is new."""
        if self._used != self._known and self._used:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(self._used, indent=1).encode())


def _stamp(parts: Iterable[Path]) -> str:
    files = [file for part in parts for file in (sorted(part.rglob("*")) if part.is_dir() else [part])]
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
