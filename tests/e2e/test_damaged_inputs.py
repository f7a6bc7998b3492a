"""A hundred damaged or wrong inputs: each a typed error that names the file, exit code 2, and an unharmed store."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cellmill as cm
from cellmill.cli import app
from cellmill.errors import InputError
from damaged import GENES, SOUND, counts, damaged_inputs, write_h5ad

DAMAGED = damaged_inputs()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    cm.build(folder / "s.mill", [write_h5ad(folder / "sound.h5ad", sp.csr_matrix(counts(9)))], vocabulary="union")
    return folder / "s.mill"


def test_there_are_a_hundred_and_the_sound_one_passes(tmp_path: Path, store: Path) -> None:
    assert len(DAMAGED) >= 100
    assert set(cm.open(store).gene_ids) == set(GENES)
    path = write_h5ad(tmp_path / "more.h5ad", sp.csr_matrix(counts()))
    assert (
        CliRunner().invoke(app, ["build", str(tmp_path / "n.mill"), str(path), "--vocabulary", "union"]).exit_code == 0
    )


@pytest.mark.parametrize("what", SOUND)
def test_what_is_damaged_is_sound_before(what: str, tmp_path: Path) -> None:
    """So that it is the damage that is refused, not the file that it was done to."""
    path = SOUND[what](tmp_path)
    made = cm.build(tmp_path / "s.mill", [path], vocabulary="union")
    place = [made.gene_ids.index(gene) for gene in GENES]
    assert (made.read(range(made.n_cells)).toarray()[:, place] == counts()).all()


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_input_is_told_and_harms_nothing(what: str, tmp_path: Path, store: Path) -> None:
    path = DAMAGED[what](tmp_path)
    before = files_of(store)
    done = CliRunner().invoke(app, ["append", str(store), str(path)])
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "Traceback" not in said
    assert path.name in said.replace(" ", ""), said  # names may be broken over lines
    assert files_of(store) == before
    with pytest.raises(InputError):
        cm.append(store, [path])
    report = cm.open(store).verify()
    assert report.ok


def test_all_damaged_inputs_beside_a_sound_one(tmp_path: Path) -> None:
    """One build of them all: the sound one is taken, each of the others is told, and the command ends with 2."""
    places = []
    for number, (what, write) in enumerate(DAMAGED.items()):
        if what == "h5ad: genes nobody knows":  # with the genes of all as vocabulary these are as good as others
            continue
        if what in ("a pipe", "an empty folder", "nothing there", "a link to nothing", "an ending nobody knows"):
            continue
        folder = tmp_path / f"in_{number:03d}"
        folder.mkdir()
        path = write(folder)
        places.append(path.rename(path.with_name(f"n{number:03d}_{path.name}")) if path.is_file() else path)
    sound = write_h5ad(tmp_path / "sound.h5ad", sp.csr_matrix(counts(3)))
    made = cm.build(tmp_path / "s.mill", [sound, *places], vocabulary="union", skip_bad=True)
    assert made.n_cells == len(counts()), made
    assert cm.open(tmp_path / "s.mill").verify().ok


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    return disk_of("192k")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount a small tmpfs")
def test_a_disk_too_small_is_told_and_the_build_works_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    paths = []
    for number in range(40):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        paths.append(write_h5ad(folder / f"donor{number}.h5ad", sp.csr_matrix(counts(number))))
    words = ["build", str(small_disk / "s.mill"), *map(str, paths), "--vocabulary", "union"]
    done = CliRunner().invoke(app, words)
    said = " ".join(done.output.split())
    assert done.exit_code != 0 and "Traceback" not in said, said
    assert "are free there" in said and "s.mill" in said, said  # told before anything is written
    assert not (small_disk / "s.mill" / "manifest.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    cm.build(tmp_path / "whole.mill", paths, vocabulary="union")
    assert cm.open(small_disk / "s.mill").verify().ok
    assert (small_disk / "s.mill/manifest.json").read_bytes() == (tmp_path / "whole.mill/manifest.json").read_bytes()


# root reads all: the work is done as another user, in a process of its own that has read its libraries before
UNREADABLE = """
import os, sys
from pathlib import Path
from typer.testing import CliRunner
from cellmill.cli import app

folder, denied, ending = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
call = lambda *words: CliRunner().invoke(app, [str(word) for word in words])
warm = call("build", folder / "warm.mill", folder / f"sound{ending}", "--vocabulary", "union")
assert warm.exit_code == 0, warm.output
if os.geteuid() == 0:
    os.seteuid(65534)
result = call("build", folder / "out.mill", folder / f"sound{ending}", denied, "--vocabulary", "union")
print(result.exit_code, result.output, result.stderr, (folder / "out.mill").exists())
"""


@pytest.mark.parametrize("ending", [".h5ad", ".csv"])
def test_what_may_not_be_read_is_told(ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # below a folder that all may enter, as pytest's own is not
        Path(folder).chmod(0o777)
        refused_for_permission(Path(folder), ending)


def refused_for_permission(folder: Path, ending: str) -> None:
    frame = "cell," + ",".join(GENES) + "\n" + "\n".join(f"c{i}," + ",".join("1" for _ in GENES) for i in range(4))
    files = [folder / f"{name}{ending}" for name in ("sound", "denied")]
    for path in files:
        if ending == ".csv":
            path.write_text(frame)
        else:
            write_h5ad(path, sp.csr_matrix(counts()))
    files[1].chmod(0)
    words = [sys.executable, "-c", UNREADABLE, str(folder), str(files[1]), ending]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("2 "), done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert f"denied{ending}" in told
    assert "ermission" in told
    assert done.stdout.strip().endswith("False")
    assert "Traceback" not in told
