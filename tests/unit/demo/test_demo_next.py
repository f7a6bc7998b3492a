"""The last line of the demonstration can be typed as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cellmill.demo.run import _next_command


def test_the_next_command_is_found_where_the_environment_is_not_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/cellmill").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert _next_command(Path("my demo/experiment.yaml")) == ".venv/bin/cellmill run 'my demo/experiment.yaml'"


def test_the_next_command_is_short_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cellmill").touch()
    (tmp_path / "cellmill").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _next_command(Path("experiment.yaml")) == "cellmill run experiment.yaml"
