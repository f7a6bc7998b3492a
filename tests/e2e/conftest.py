"""Writers in processes of their own, started in milliseconds: what tests of kills and of two writers share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Warm:
    """A process that forks writers; see warm_writers.py."""

    def __init__(self, example: Path) -> None:
        script = Path(__file__).with_name("warm_writers.py")
        environment = {**os.environ, "CELLMILL_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(example)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, verb: str, *args: object, **request: Any) -> int:
        """Start a writer and return its process id; `end` waits for it."""
        given = [[str(a) for a in arg] if isinstance(arg, list) else str(arg) for arg in args]
        self.process.stdin.write(json.dumps({"verb": verb, "args": given, **request}) + "\n")
        self.process.stdin.flush()
        return int(self._answer()["pid"])

    def end(self) -> dict[str, Any]:
        """What became of the writer: digest, events and seconds; or error and message; or the signal it died by."""
        return self._answer()

    def run(self, verb: str, *args: object, **request: Any) -> dict[str, Any]:
        self.start(verb, *args, **request)
        return self.end()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, "the process that forks writers has died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture
def warm(tiny_h5ad: Any) -> Iterator[Callable[[], Warm]]:
    """Make processes that fork writers; they are stopped at the end."""
    made: list[Warm] = []

    def make() -> Warm:
        made.append(Warm(tiny_h5ad("example").path))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs of a size such as "32m", which needs root; the test is skipped where that is not allowed."""
    place = tmp_path / "disk"

    def mount(size: str) -> Path:
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)
