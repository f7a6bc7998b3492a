"""A build over more inputs than a process may have open files."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

import cellmill as cm

resource = pytest.importorskip("resource", reason="this system has no limits of open files to set")

N_FILES = 110  # more than the plan keeps open at once, and than the limit below
MOST_OPEN = 90


def write_inputs(folder: Path) -> list[Path]:
    paths = []
    text = h5py.string_dtype()
    for number in range(N_FILES):
        path = folder / f"donor_{number:03d}.h5ad"
        counts = np.random.default_rng(number).poisson(0.7, (6, 12)).astype(np.float32)
        with h5py.File(path, "w") as file:
            file["X"] = counts
            file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for place, name, size in (("obs", "cell", 6), ("var", "ENSG", 12)):
                table = file.create_group(place)
                table.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
                table.attrs["column-order"] = np.array(["n"] if place == "obs" else [], dtype=text)
                table["_index"] = np.array([f"{name}{i:011d}" for i in range(size)], dtype=object)
            file["obs/n"] = np.full(6, number)
        paths.append(path)
    return paths


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_more_inputs_than_open_files(tmp_path: Path, workers: int) -> None:
    paths = write_inputs(tmp_path)
    script = f"""
        import resource, sys
        import cellmill as cm
        if __name__ == "__main__":
            resource.setrlimit(resource.RLIMIT_NOFILE, ({MOST_OPEN}, {MOST_OPEN}))
            cm.build(sys.argv[1], sys.argv[2:], vocabulary="union", workers={workers})
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(script))
    store = tmp_path / "s.mill"
    done = subprocess.run([sys.executable, str(program), str(store), *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    made = cm.open(store)
    assert made.n_cells == 6 * N_FILES
    place = [made.gene_ids.index(f"ENSG{i:011d}") for i in range(12)]
    for number in (0, 57, N_FILES - 1):
        wanted = np.random.default_rng(number).poisson(0.7, (6, 12))
        rows = np.arange(6 * number, 6 * number + 6)
        np.testing.assert_array_equal(made.read(rows).toarray()[:, place], wanted)
