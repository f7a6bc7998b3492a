"""The last line of the demonstration can be typed as it is."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cellmill.cli import app
from cellmill.demo.run import _next_command, _own_command


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


def test_the_command_for_a_file_of_ones_own_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    command = _own_command(tmp_path / "my demo")
    words = shlex.split(command.replace("YOUR.h5ad", str(tmp_path / "lost.h5ad")))[1:]
    result = CliRunner().invoke(app, words)
    assert "lost.h5ad: no such file or folder" in " ".join(result.stderr.split())  # not: no such option, or command
    assert words[-1] == str(tmp_path / "my demo-own")
