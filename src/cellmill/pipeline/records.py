"""What has been done (floor 8): one record a stage, written after its work, in one atomic step.

Knows stages and files; knows nothing of what the work is. A record that stands is true: it is taken away before its
stage is done again, and written when the outputs lie on the disk. So a process may be killed at any instruction.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellmill.errors import InputError
from cellmill.pipeline.stages import Stage
from cellmill.storage import sync_folder, write_atomic

__all__ = ["Record", "Records", "claim_folder"]

Json = Any


@dataclass(frozen=True)
class Record:
    """What a finished stage leaves behind.

    Attributes
    ----------
    name, key : str
        Of the stage that was done.
    inputs : dict
        Its inputs, so that the next run can say what has changed.
    after : dict
        Name and key of the stages that it built on.
    started, finished : str
        UTC, to the second.
    seconds : float
    results : dict
        What the work found out and later stages need; JSON.
    sizes : dict
        Size in bytes of each output that is a file.
    """

    name: str
    key: str
    inputs: Mapping[str, Json]
    after: Mapping[str, str]
    started: str
    finished: str
    seconds: float
    results: Mapping[str, Json] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


class Records:
    """The records of one experiment, in its folder `records/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, stage: Stage) -> Record | None:
        """Return the record of a stage, None when there is none that can be read."""
        try:
            return Record(**json.loads(self._path(stage).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, stage: Stage) -> str | None:
        """Take away what was said of a stage; return the key under which its work was begun before and not finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = self._begun_path(stage)
        before = begun.read_text() if begun.exists() else None
        write_atomic(begun, stage.key.encode())
        self._path(stage).unlink(missing_ok=True)
        sync_folder(self.folder)
        return before

    def write(self, stage: Stage, record: Record) -> None:
        """Say that a stage is done; from here on it stays done."""
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
        write_atomic(self._path(stage), text.encode())
        self._begun_path(stage).unlink(missing_ok=True)

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.slug}.json"

    def _begun_path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.slug}.begun"


def claim_folder(folder: Path, key: str) -> None:
    """Make sure that what lies in a run's folder belongs to `key`; set aside and remove what another key left there.

    Raises
    ------
    InputError
        When a folder lies there that no key was written for.

    Notes
    -----
    The key is written before the folder exists and the folder is renamed before it is emptied, so that at any moment
    a folder beside a matching key is of that key.
    """
    mark = folder.with_name(f"{folder.name}.key")
    discarded = folder.with_name(f".{folder.name}.discarded")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(discarded, ignore_errors=True)
    owner = mark.read_text() if mark.exists() else None
    if folder.exists() and owner is None:
        raise InputError(
            f"{folder}: a folder lies here that this experiment did not make. Move it away, or give the experiment "
            "another out folder."
        )
    if folder.exists() and owner != key:
        folder.rename(discarded)
    if owner != key:
        write_atomic(mark, key.encode())
    shutil.rmtree(discarded, ignore_errors=True)
