"""A disk that fills up in the middle of a build: told as such, nothing half made, and nothing is done twice."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cellmill as cm
from cellmill import events
from cellmill.cli import app
from cellmill.errors import DiskSpaceError
from cellmill.events import Event
from cellmill.sources import Limits
from cellmill.sources.spill import CellSorter
from cellmill.store.staging import Staging
from damaged import N_CELLS, counts, write_h5ad

N_INPUTS = 24
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount a small tmpfs"
)


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    return disk_of("32m")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return [write_h5ad(folder / f"donor{n}.h5ad", sp.csr_matrix(counts(n))) for n in range(N_INPUTS)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, inputs: list[Path]) -> dict[str, bytes]:
    """The files of the store that is built where there is room."""
    path = tmp_path_factory.mktemp("roomy") / "s.mill"
    cm.build(path, inputs, vocabulary="union")
    return contents(path)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json")  # which tells times
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def fill(ballast: Path) -> None:
    """Take all room that is left."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(ballast.parent).free == 0


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "in the first shard": lambda event: event.unit == "cells" and event.stage.startswith("building") and event.done > 0,
    "half way": lambda event: event.stage.startswith("building") and event.done >= N_INPUTS * N_CELLS / 2,
    "when all shards are written": lambda event: event.stage.startswith("looking for duplicates"),
}


def run(words: list[str], *, ballast: Path | None = None, moment: Callable[[Event], bool] = lambda _: False):
    """Run a command; at a moment of it the disk fills up."""

    def watch(event: Event) -> None:
        if ballast is not None and not ballast.exists() and moment(event):
            fill(ballast)

    with events.listening(watch):
        done = CliRunner().invoke(app, words)
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fills_up_stops_a_build_that_goes_on_when_there_is_room(
    small_disk: Path, inputs: list[Path], whole: dict[str, bytes], moment: str, workers: str
) -> None:
    target, ballast = small_disk / "s.mill", small_disk / "ballast"
    words = ["build", str(target), *map(str, inputs), "--vocabulary", "union", "--workers", workers]
    code, said = run(words, ballast=ballast, moment=MOMENTS[moment])
    assert ballast.exists(), "the build was done before the disk was full"
    assert code == 1 and "Traceback" not in said, said
    assert "no room was left while the store was written (No space left on device)" in said, said
    assert "free about" in said and "run the same command again" in said, said
    assert not target.exists()
    kept = len(list((Staging.folder_of(target) / "journal").glob("*.npz")))
    code, said = run(words)  # still no room
    assert code == 1 and "Traceback" not in said and ("are free there" in said or "no room was left" in said), said
    assert not target.exists()
    ballast.unlink()
    code, said = run(words)
    assert code == 0, said
    if moment != "in the first shard":
        assert kept >= N_INPUTS // 2 - 1 and "that an interrupted run had finished" in said, (kept, said)
    assert contents(target) == whole
    assert cm.open(target).verify().ok
    assert sorted(path.name for path in small_disk.iterdir()) == ["s.mill"]


def write_archive(folder: Path) -> Path:
    path = write_h5ad(folder / "inside.h5ad", sp.csr_matrix(counts()))
    with tarfile.open(folder / "study.tar", "w") as tar:
        tar.add(path, arcname="inside.h5ad")
    return folder / "study.tar"


def write_large_csc(folder: Path) -> Path:
    x = sp.csc_matrix(np.random.default_rng(0).poisson(1.0, (4000, 40)).astype(np.float32))
    ad.AnnData(x, var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(40)])).write_h5ad(folder / "sorted.h5ad")
    return folder / "sorted.h5ad"


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(("write", "said"), [(write_large_csc, "Sorting"), (write_archive, "Unpacking")])
def test_no_room_for_temporary_files_is_not_the_fault_of_an_input(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write, said: str, skip_bad: bool
) -> None:
    path, sound = write(tmp_path), write_h5ad(tmp_path / "sound.h5ad", sp.csr_matrix(counts(1)))
    ballast = small_disk / "ballast"
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(CellSorter, "fits_memory", property(lambda self: False))
    monkeypatch.setattr(Limits, "chunk_entries", property(lambda self: 4096))

    def watch(event: Event) -> None:
        if event.stage.startswith(("sorting", "unpacking")) and not ballast.exists():
            fill(ballast)

    build = partial(cm.build, tmp_path / "s.mill", [path, sound], vocabulary="union", skip_bad=skip_bad)
    with events.listening(watch), pytest.raises(DiskSpaceError) as caught:
        build()
    assert str(caught.value).startswith(said) and str(small_disk) in str(caught.value)
    assert "no room was left" in str(caught.value) and "TMPDIR" in str(caught.value)
    assert not (tmp_path / "s.mill").exists()
    ballast.unlink()
    assert len(build().manifest.sources) == 2
    assert not any(small_disk.iterdir())
