"""A short run of libFuzzer with the sanitizers on the decoders, where clang is; `make fuzz` is the long one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "native" / "fuzz" / "run.sh"
SECONDS = 4
NO_CLANG = 3  # what run.sh ends with


def run(*args: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CELLMILL_FUZZ_FOLDER": str(folder), **environment}
    return subprocess.run([str(RUN), *args], capture_output=True, text=True, env=env, timeout=300)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "clang++")) is None, reason="clang is not installed here")
@pytest.mark.parametrize("target", ["decode", "model"])
def test_fuzzing_for_seconds_finds_nothing(request, target):
    # kept between runs: programs need not be compiled again, and the next run begins with what this one found
    said = run(str(SECONDS), target, folder=request.config.cache.mkdir("fuzz"))
    if said.returncode == NO_CLANG:
        pytest.skip(said.stderr.splitlines()[0])
    assert said.returncode == 0, said.stderr
    executions = re.search(rf"^{target}: (\d+) executions", said.stdout)
    assert executions and int(executions[1]) > 1000, said.stdout


def test_a_missing_clang_is_told_with_what_to_install(tmp_path):
    said = run("1", folder=tmp_path, CXX="clang++-not-there")
    assert said.returncode == NO_CLANG
    assert "clang++-not-there is missing" in said.stderr and "apt install clang" in said.stderr


@pytest.mark.parametrize("args", [(), ("0",), ("soon",), ("1", "encode")])
def test_a_wrong_call_is_told(tmp_path, args):
    said = run(*args, folder=tmp_path)
    assert said.returncode == 2 and said.stderr.startswith("fuzz: ")
