"""The comparison of `benchmarks/`: what it reads, what it refuses, and what it concludes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cellmill.simulate import reference_blocks, reference_model, write_reference

pytest.importorskip("torch")
HARNESS = Path(__file__).parents[3] / "benchmarks"
NAMES = ("source", "systems", "systems.base", "systems.plain", "systems.cellmill_store", "worker", "tables")


@pytest.fixture(scope="module")
def harness() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(HARNESS))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(HARNESS))
        for name in [name for name in sys.modules if name.split(".")[0] in {*NAMES, "systems_known"}]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_reference(tmp_path_factory.mktemp("harness"), n_cells=300, n_genes=800, n_shards=3)


def test_rows_of_the_source_are_those_that_were_simulated(harness: dict[str, ModuleType], inputs: list[Path]) -> None:
    source = harness["source"].SourceFiles(inputs)
    model = reference_model(n_genes=800)
    whole = np.concatenate(
        [next(iter(reference_blocks(model, n_cells=100, shard=k))).counts.toarray() for k in range(3)]
    )
    rows = np.array([299, 0, 150, 150])
    assert np.array_equal(source.rows(rows).toarray(), whole[rows])
    assert sum(len(pointers) - 1 for pointers, _, _ in source.blocks(cells=70)) == 300


@pytest.mark.parametrize("system", ["systems.plain:CsrMemoryMap", "systems.cellmill_store:CellmillStore"])
def test_a_system_that_reads_the_truth_passes(
    harness: dict[str, ModuleType], inputs: list[Path], tmp_path: Path, system: str
) -> None:
    module, name = system.split(":")
    opened = getattr(harness[module], name)(tmp_path / "store")
    opened.convert(inputs)
    opened.open(inputs, threads=1)
    harness["worker"].check(opened, harness["source"].SourceFiles(inputs), np.arange(0, 800, 7), seed=0)
    assert 0 < opened.count_bytes() <= opened.total_bytes()


def test_a_system_that_reads_other_numbers_is_refused(harness: dict[str, ModuleType], inputs: list[Path]) -> None:
    memory = harness["systems.plain"].CsrInMemory(Path("nowhere"))
    memory.open(inputs, threads=1)
    memory.matrix.data[:] = np.where(memory.matrix.data == 3, 4, memory.matrix.data)
    with pytest.raises(harness["worker"].WrongValuesError, match="differ from the source"):
        harness["worker"].check(memory, harness["source"].SourceFiles(inputs), np.arange(10), seed=0)


def test_goals_are_ratios_of_medians_of_one_run(harness: dict[str, ModuleType]) -> None:
    def speed(system: str, rate: float) -> dict[str, object]:
        mode = {"kind": "random", "batch": 512, "threads": 1, "cells_per_second": rate}
        return {"system": system, "action": "speed", "rates": [mode]}

    raw = [speed("cellmill", rate) for rate in (100.0, 300.0, 200.0)] + [speed("memmap", 160.0)]
    raw.append({"system": "cellmill", "action": "convert", "seconds": 5.0, "peak_rss": 2**31, "count_bytes": 85})
    tables = harness["tables"]
    sample = {"nonzeros": 100, "entropy_bytes_per_nonzero": 0.5}
    found = {
        goal["what"]: (goal["found"], goal["met"])
        for goal in tables.goals({"summary": tables.summarise(raw, sample), "sample": sample})
    }
    assert found["1 thread, batch 512 / memory map"] == (1.25, True)
    assert found["bytes per nonzero"] == (0.85, True)
    assert found["bytes per nonzero / gene-wise entropy"] == (1.7, False)
    assert found["conversion: peak memory, GiB"] == (2.0, False)
    assert found["2 threads, batch 512 / best peer, one or two"] == (None, None)
