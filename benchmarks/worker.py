"""One system, one task, in a process of its own: the parent gives a JSON specification and reads a JSON answer.

    python benchmarks/worker.py '{"action": "speed", "system": "hf", "place": "...", "inputs": ["..."], ...}'

Every system gets the same processors, the same rows in the same batches, and returns torch CSR tensors. Before anything
is timed, its values are compared with the source: a system that reads other numbers is refused.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(sys.argv[1]) if __name__ == "__main__" else {}
CPUS = SPEC.get("cpus", [])
if CPUS and SPEC.get("action") != "convert":
    os.sched_setaffinity(0, CPUS[:1])
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402
from source import SourceFiles  # noqa: E402
from systems import load_system  # noqa: E402
from systems.base import Parts, System, torch_csr  # noqa: E402

MARK = "RESULT "
CHECKED_ROWS = 96


class WrongValuesError(Exception):
    """A system returned other counts than the source holds."""


# ---- memory --------------------------------------------------------------------------------------------------------


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


class PeakMemory:
    """The most anonymous memory while the enclosed code runs, looked at every 10 ms."""

    def __enter__(self) -> PeakMemory:
        self.most, self._done = status_bytes("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, status_bytes("RssAnon"))

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


# ---- conversion ----------------------------------------------------------------------------------------------------


def convert(system: System, spec: dict[str, Any]) -> dict[str, Any]:
    if not system.has_store:
        return {"skipped": "nothing to convert"}
    if system.place.exists():
        shutil.rmtree(system.place) if system.place.is_dir() else system.place.unlink()
    before = status_bytes("VmRSS")
    with PeakMemory() as peak:
        begin = time.perf_counter()
        system.convert([Path(path) for path in spec["inputs"]])
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "rss_before": before,
        "peak_rss": max(status_bytes("VmHWM"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024),
        "peak_anonymous": peak.most,
        "count_bytes": system.count_bytes(),
        "total_bytes": system.total_bytes(),
    }


# ---- values --------------------------------------------------------------------------------------------------------


def as_input_csr(system: System, parts: Parts, n_genes: int) -> sp.csr_matrix:
    indptr, indices, values = (part.numpy() for part in parts)
    columns = system.columns()
    if columns is not None:
        indices = columns[indices]
    found = sp.csr_matrix((values.astype(np.int64), indices, indptr), shape=(len(indptr) - 1, n_genes))
    found.sort_indices()
    return found


def compare(system: System, parts: Parts, rows: np.ndarray, source: SourceFiles, what: str) -> None:
    expected = source.rows(rows).astype(np.int64)
    found = as_input_csr(system, parts, source.n_genes)
    if found.shape != expected.shape or (found != expected).nnz:
        raise WrongValuesError(
            f"{type(system).__name__}, {what}: {(found != expected).nnz} counts differ from the source"
        )


def check(system: System, source: SourceFiles, panel: np.ndarray, seed: int) -> None:
    rows = np.random.default_rng([seed, 7]).integers(0, source.n_cells, CHECKED_ROWS)
    if not system.keeps_order:
        batches = system.own_batches(64, is_random=True, seed=seed)
        for _ in range(2):
            parts, held = next(batches)
            compare(system, parts, np.asarray(held), source, "own order")
        return
    compare(system, system.parts(rows), rows, source, "random rows")
    start = source.n_cells // 3
    stop = min(start + CHECKED_ROWS, source.n_cells)
    compare(system, system.run(start, stop), np.arange(start, stop), source, "neighbours")
    dense = system.dense_panel(rows, panel).numpy()
    if (dense != source.rows(rows)[:, panel].toarray()).any():
        raise WrongValuesError(f"{type(system).__name__}: the panel differs from the source")


# ---- batches -------------------------------------------------------------------------------------------------------


def batches_of_rows(n_cells: int, batch: int, order: str, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([seed, batch])
    batch = min(batch, n_cells)
    while True:
        if order == "random":
            rows = rng.permutation(n_cells)
        else:
            rows = np.roll(np.arange(n_cells), -int(rng.integers(n_cells - batch + 1)))
        for at in range(0, n_cells - batch + 1, batch):
            yield rows[at : at + batch]


def read_one(system: System, mode: dict[str, Any], panel: np.ndarray) -> Callable[[np.ndarray], int]:
    """Return what reads one batch to a tensor, and gives the number of its cells."""

    def csr(rows: np.ndarray) -> int:
        return int(torch_csr(system.parts(rows), system.n_genes).shape[0])

    def neighbours(rows: np.ndarray) -> int:
        if rows[-1] - rows[0] != len(rows) - 1:  # round the end
            return csr(rows)
        return int(torch_csr(system.run(int(rows[0]), int(rows[-1]) + 1), system.n_genes).shape[0])

    def dense(rows: np.ndarray) -> int:
        return int(system.dense_panel(rows, panel).shape[0])

    return {"random": csr, "sequential": neighbours, "panel": dense}[mode["kind"]]


class RowsDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, system: System, batches: list[np.ndarray]) -> None:
        self.system, self.batches = system, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Parts:
        return self.system.parts(self.batches[index])


def own_order(system: System, mode: dict[str, Any], seed: int) -> Iterator[int]:
    for parts, _ in system.own_batches(mode["batch"], is_random=mode["kind"] != "sequential", seed=seed):
        yield int(torch_csr(parts, system.n_genes).shape[0])


def in_process(system: System, mode: dict[str, Any], n_cells: int, panel: np.ndarray, seed: int) -> Iterator[int]:
    read = read_one(system, mode, panel)
    order = "sequential" if mode["kind"] == "sequential" else "random"
    for rows in batches_of_rows(n_cells, mode["batch"], order, seed):
        yield read(rows)


def timed(batches: Iterator[int], *, seconds: float, most_cells: float = float("inf")) -> float:
    next(batches)  # what is opened when it is first needed is not a matter of speed; it is measured apart
    begin = time.perf_counter()
    cells = count = 0
    for got in batches:
        cells, count = cells + got, count + 1
        elapsed = time.perf_counter() - begin
        if (elapsed >= seconds and (count >= 3 or elapsed >= 4 * seconds)) or cells >= most_cells:
            break
    return cells / (time.perf_counter() - begin)


def by_workers(
    system: System, mode: dict[str, Any], n_cells: int, seed: int, *, rate: float, spec: dict[str, Any]
) -> float:
    """Return cells per second of two DataLoader workers, the filling of their queues included."""
    batch = mode["batch"]
    n_batches = int(min(max(12, rate * spec["seconds"] / batch), 4000))
    rows = batches_of_rows(n_cells, batch, "sequential" if mode["kind"] == "sequential" else "random", seed)
    batches = [next(rows) for _ in range(n_batches)]
    if mode.get("cold"):
        batches = batches[: max(3, n_cells // batch)]
    first, rest = RowsDataset(system, batches[:2]), RowsDataset(system, batches[2:] or batches)
    both = torch.utils.data.ConcatDataset([first, rest])
    loader = torch.utils.data.DataLoader(
        both, batch_size=None, sampler=Switch(len(first), len(rest)), num_workers=2, persistent_workers=True,
        prefetch_factor=4,
    )  # fmt: skip
    for _ in loader:  # the workers are started and have opened what they need
        pass
    begin = time.perf_counter()
    cells = sum(int(torch_csr(tuple(parts), system.n_genes).shape[0]) for parts in loader)
    return cells / (time.perf_counter() - begin)


class Switch(torch.utils.data.Sampler):  # type: ignore[type-arg]
    """The first batches when it is asked for the first time, the others from then on."""

    def __init__(self, n_first: int, n_rest: int) -> None:
        self.spans = [range(n_first), range(n_first, n_first + n_rest)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.spans.pop(0) if len(self.spans) > 1 else self.spans[0])


# ---- speed ---------------------------------------------------------------------------------------------------------


def warm(files: list[Path]) -> None:
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


def one_mode(
    system: System, mode: dict[str, Any], source: SourceFiles, panel: np.ndarray, spec: dict[str, Any]
) -> float:
    seed, n_cells = spec["seed"], source.n_cells
    seconds = spec["seconds"]
    most = max(1, n_cells - 2 * mode["batch"]) if mode.get("cold") else float("inf")  # no cell is read twice
    if not system.keeps_order:
        return timed(own_order(system, mode, seed), seconds=seconds, most_cells=most)
    if mode["threads"] > 1 and not system.has_threads:
        return by_workers(system, mode, n_cells, seed, rate=spec.get("rate", 20_000.0), spec=spec)
    return timed(in_process(system, mode, n_cells, panel, seed), seconds=seconds, most_cells=most)


def pin(threads: int) -> None:
    if CPUS:
        os.sched_setaffinity(0, CPUS[:threads] if len(CPUS) >= threads else CPUS)


def possible(system: System, mode: dict[str, Any]) -> bool:
    if mode["kind"] == "panel" and not system.keeps_order:
        return False
    return not (mode["threads"] > 1 and mode["kind"] == "panel" and not system.has_threads)


def speed(system: System, spec: dict[str, Any]) -> dict[str, Any]:
    inputs = [Path(path) for path in spec["inputs"]]
    source, panel = SourceFiles(inputs), np.array(spec["panel"])
    base = status_bytes("RssAnon")
    begin = time.perf_counter()
    system.open(inputs, threads=1)
    opened = time.perf_counter() - begin
    check(system, source, panel, spec["seed"])
    if system.columns() is not None:
        system.lookup(panel)
    warm(system.files())
    rates, memory, threads = [], 0, 1
    for mode in sorted(spec["modes"], key=lambda mode: mode["threads"]):
        if not possible(system, mode):
            continue
        if mode["threads"] != threads:
            memory, threads = max(memory, status_bytes("RssAnon")), mode["threads"]
            pin(threads)
            if system.has_threads:
                system.open(inputs, threads=threads)
        rate = one_mode(system, mode, source, panel, spec)
        if mode["kind"] == "random" and mode["threads"] == 1:
            spec["rate"] = rate
        rates.append({**mode, "cells_per_second": rate})
    sizes = {"count_bytes": system.count_bytes(), "total_bytes": system.total_bytes()} if system.has_store else {}
    return {
        **sizes,
        "rates": rates,
        "open_seconds": opened,
        "anonymous_before": base,
        "anonymous": max(memory, status_bytes("RssAnon") if threads == 1 else 0),
    }


def cold(system: System, spec: dict[str, Any]) -> dict[str, Any]:
    """Time one mode from files whose pages were dropped before this process began."""
    inputs, (mode,) = [Path(path) for path in spec["inputs"]], spec["modes"]
    if not possible(system, mode) or (system.has_store and not system.files()):
        return {"rates": []}
    pin(mode["threads"])
    source = SourceFiles(inputs)
    system.open(inputs, threads=mode["threads"])
    if not system.files():
        return {"rates": []}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    rate = one_mode(system, {**mode, "cold": True}, source, np.array(spec["panel"]), spec)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before
    return {"rates": [{**mode, "cells_per_second": rate}], "major_faults": faults}


def main() -> None:
    try:
        system = load_system(SPEC["system"], Path(SPEC["place"]))
        torch.set_num_threads(1)
        answer = {"convert": convert, "speed": speed, "cold": cold}[SPEC["action"]](system, SPEC)
        answer["versions"] = {"python": sys.version.split()[0], **system.versions()}
    except ImportError as error:
        answer = {"missing": str(error)}
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
