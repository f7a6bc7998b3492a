"""The command as a process: pipes, signals, encodings, and libraries that are not there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# Python imports this module at its start, from PYTHONPATH; the packages that it blocks are then as if not installed.
BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
sys.meta_path.insert(0, Blocker())
"""


def cellmill(*words: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cellmill", *map(str, words)],
        capture_output=True, env={**os.environ, **variables}, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["head", "--help"], ["info"], ["info", "--json"], ["genes", "map", "CD4"]], ids=str)
def test_a_pipe_that_nobody_reads_is_no_failure(words: list[str], small_store: Path) -> None:
    words = [*words, str(small_store)] if words[0] == "info" else words
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "cellmill", *words], stdout=write, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


def test_an_encoding_without_our_signs_is_no_failure(small_store: Path) -> None:
    done = cellmill(
        "verify", small_store, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii", LC_ALL="C"
    )
    assert done.returncode == 0, done.stderr
    assert b"is sound" in done.stdout


def test_an_interrupt_while_importing_is_one_line(tmp_path: Path) -> None:
    # Python imports this module at its start; it sends the signal when the verbs begin to be imported.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "class Interrupter:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        f"            os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "sys.meta_path.insert(0, Interrupter())\n"
    )
    done = cellmill("doctor", "--imports", PYTHONPATH=str(tmp_path))
    assert done.returncode == 130
    assert done.stderr == b"interrupted\n"


@pytest.mark.parametrize(("words", "code"), [(["genes", "report"], 2), (["verify"], 2)], ids=str)
def test_a_kernel_that_is_not_known_is_refused(words: list[str], code: int, small_store: Path) -> None:
    done = cellmill(*words, small_store, CELLMILL_KERNEL="refrence")
    assert done.returncode == code
    assert b"CELLMILL_KERNEL is 'refrence'" in done.stderr
    assert b"Did you mean 'reference'?" in done.stderr
    assert b"Traceback" not in done.stderr


def test_doctor_tells_of_a_kernel_that_is_not_known() -> None:
    done = cellmill("doctor", CELLMILL_KERNEL="bogus")
    assert done.returncode == 0
    assert b"Unset CELLMILL_KERNEL" in done.stdout


@pytest.mark.parametrize(
    ("blocked", "extra"), [(("torch", "scvi", "lightning", "safetensors"), "[scvi]"),
                           pytest.param(("safetensors",), "[torch]", marks=pytest.mark.slow),
                           pytest.param(("lightning",), "[scvi]", marks=pytest.mark.slow)], ids=str,
)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", pytest.param("train", marks=pytest.mark.slow)])
def test_training_without_its_libraries_names_the_extra(
    verb: str, blocked: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
    done = cellmill(verb, REPOSITORY / "examples" / "compare-arms.yaml", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert f"pip install -c constraints.txt '.{extra}'".encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_interrupt_that_a_library_swallows_ends_the_command_all_the_same(tmp_path: Path, small_store: Path) -> None:
    # Verify's first look at a file sends the signal, and takes what comes for a failure of its own.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import cellmill.store.verify as verify\n"
        "check = verify._check_file\n"
        "def swallowing(*args):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "    except BaseException:\n"
        "        pass\n"
        "    return check(*args)\n"
        "verify._check_file = swallowing\n"
        "emit = verify.emit\n"
        "verify.emit = lambda *args, **how: (emit(*args, **how), print('went on'))\n"
    )
    done = cellmill("verify", small_store, PYTHONPATH=str(tmp_path))
    assert done.returncode == 130, done.stderr
    assert b"is sound" not in done.stdout
    assert b"went on" not in done.stdout  # the first event raised it again


def test_an_interrupt_that_is_swallowed_at_the_end_is_in_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import rich.console as console\n"
        "show = console.Console.print\n"
        "def swallowing(self, *args, **how):\n"
        "    show(self, *args, **how)\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "    except BaseException:\n"
        "        pass\n"
        "console.Console.print = swallowing\n"
    )
    done = cellmill("--version", PYTHONPATH=str(tmp_path))
    assert b"cellmill" in done.stdout
    assert done.returncode == 130


def test_protect_and_plan_with_a_figure(small_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(small_store, tmp_path / "eval.mill")
    done = cellmill("protect", store, "--name", "held-out")
    assert done.returncode == 0, done.stderr
    assert b"protected as 'held-out'" in done.stdout
    refused = cellmill("append", store, tmp_path / "none.h5ad")
    assert refused.returncode == 2
    (tmp_path / "mix.yaml").write_text(f"components: [{{name: all, store: {small_store}}}]\n")
    done = cellmill("plan", tmp_path / "mix.yaml", "--figure", tmp_path / "plan.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["components"][0]["name"] == "all"
    assert (tmp_path / "plan.png").stat().st_size > 10_000
    assert b"is released" in cellmill("protect", store, "--release").stdout
