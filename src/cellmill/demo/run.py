"""A demonstration (demo): from count matrices to a trained, evaluated and reported model, in one call.

Composes an experiment, hands it to `cellmill.pipeline`, and measures what a newcomer asks first. Nothing else happens
here.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cellmill.demo.experiment import data_section, own_experiment, simulated_experiment
from cellmill.errors import InputError
from cellmill.events import emit
from cellmill.loader import Loader
from cellmill.pipeline import parse_experiment, run_experiment
from cellmill.storage import write_atomic
from cellmill.store import Store, open_store
from cellmill.tokens import CSR
from cellmill.units import count_text, size_text, time_text

__all__ = ["DemoResult", "run_demo"]

Json = Any
EXPERIMENT_NAME = "experiment.yaml"
_MEASURE_SECONDS = 1.0


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration leaves, and the three numbers that matter.

    Attributes
    ----------
    report : Path
        The report, one HTML file.
    accuracy : tuple of dict
        For each evaluation set: name, cells, Pearson correlation per cell of the first arm's model with its interval
        over seeds, and that of the baselines (mean profile, PCA).
    cells_per_second : float
        Random cells that the loader delivers, batches of 512, page cache warm, on this machine.
    bytes_per_count : float
        Bytes of the store's shards for each count above zero: frames and offsets.
    store_bytes, input_bytes : int
        On disk: the whole store with obs, genes, vocabulary and reports; all inputs.
    seconds : float
        The whole demonstration.
    experiment : Path
        The experiment file that was written and run.
    next_command : str
    own_command : str or None
        The same for a file of one's own, whose name takes the place of YOUR.h5ad; None where it was that.
    """

    report: Path
    accuracy: tuple[Mapping[str, Json], ...]
    cells_per_second: float
    bytes_per_count: float
    store_bytes: int
    input_bytes: int
    seconds: float
    experiment: Path
    next_command: str
    own_command: str | None = None

    @property
    def times_smaller(self) -> float:
        """How many times smaller the store is than its inputs."""
        return self.input_bytes / self.store_bytes

    def to_dict(self) -> dict[str, Json]:
        """Return the result as plain data."""
        return {
            "report": str(self.report),
            "accuracy": [dict(one) for one in self.accuracy],
            "cells_per_second": self.cells_per_second,
            "bytes_per_count": self.bytes_per_count,
            "store_bytes": self.store_bytes,
            "input_bytes": self.input_bytes,
            "times_smaller": self.times_smaller,
            "seconds": self.seconds,
            "experiment": str(self.experiment),
            "next_command": self.next_command,
            "own_command": self.own_command,
        }

    def __str__(self) -> str:
        size = f"{size_text(self.store_bytes)}, {self.times_smaller:.1f} times smaller than its inputs"
        lines = (
            f"done in {time_text(self.seconds)}; the report: {self.report}",
            "",
            *(f"  {_accuracy_text(one)}" for one in self.accuracy),
            f"  loader: {count_text(round(self.cells_per_second))} random cells a second",
            f"  store: {self.bytes_per_count:.2f} bytes a count; on disk {size} ({size_text(self.input_bytes)})",
            "",
            f"next: {self.next_command}",
            *([f"with a file of your own: {self.own_command}"] if self.own_command else []),
        )
        return "\n".join(lines)


def run_demo(out: str | Path = "cellmill-demo", data: Sequence[str | Path] | None = None) -> DemoResult:
    """Take cells, simulated or one's own, through store, mixture, training and evaluation to a report.

    Parameters
    ----------
    out : str or Path
        Folder of everything that the demonstration makes; run again, it continues or finds itself up to date.
    data : sequence of str or Path, optional
        Files, folders or patterns of one's own count matrices. A small simulated atlas when None.

    Raises
    ------
    InputError
        For files that cannot be used (not raw counts, no genes known, damaged), or a folder that holds something else.
    StoreLockedError
        When another process runs the same demonstration.

    Notes
    -----
    With one's own files, columns that hold cell types, donors and tissues are recognised by their usual names and
    brought to one name. Donors are held out where they are known; where not, cells are, and the report says so.

    Examples
    --------
    >>> result = run_demo("cellmill-demo")  # doctest: +SKIP
    >>> print(result)  # doctest: +SKIP
    """
    started = time.perf_counter()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file lies where the demonstration should go; give another folder.")
    experiment = folder / EXPERIMENT_NAME
    content = simulated_experiment() if data is None else _own_content(data, folder)
    content["report"]["next_command"] = _next_command(experiment)
    _write_experiment(experiment, content)
    result = run_experiment(experiment)
    assert result.report is not None
    store = open_store(folder / "atlas.mill")
    emit("measuring the loader")
    n_bytes = _folder_bytes(store.path)
    first_arm = next(iter(content["arms"]))
    return DemoResult(
        report=folder / result.report.name,
        accuracy=tuple(one for one in result.results("report")["accuracy"] if one["arm"] == first_arm),
        cells_per_second=measure_loader(store),
        bytes_per_count=store.n_bytes / max(store.nnz, 1),
        store_bytes=n_bytes,
        input_bytes=sum(source.bytes for source in store.manifest.sources),
        seconds=time.perf_counter() - started,
        experiment=experiment,
        next_command=_next_command(experiment),
        own_command=_own_command(folder) if data is None else None,
    )


def measure_loader(store: Store, *, seconds: float = _MEASURE_SECONDS) -> float:
    """Return the random cells per second that the loader delivers over some seconds, after a warm-up of one epoch."""
    for _ in Loader(store, batch_size=512, tokens=CSR(), epochs=1):
        pass
    done, started = 0, time.perf_counter()
    for batch in Loader(store, batch_size=512, tokens=CSR(), epochs=100_000, seed=1):
        done += len(batch.cells)
        if time.perf_counter() - started > seconds:
            break
    return done / (time.perf_counter() - started)


def _accuracy_text(one: Mapping[str, Json]) -> str:
    pearson, baselines = one["pearson"], one["baselines"]
    if not pearson["n"]:
        return f"reconstruction of {one['set']}: no cell of it could be scored"
    spread = f" ({pearson['low']:.3f} to {pearson['high']:.3f}, {pearson['n']} seeds)" if pearson["n"] > 1 else ""
    others = ", ".join(f"{name} {value:.3f}" for name, value in baselines.items())
    cells = f"{count_text(one['n_cells'])} unseen cells of {one['set']}"
    return f"reconstruction of {cells}: Pearson {pearson['mean']:.3f}{spread}; {others}"


def _own_content(data: Sequence[str | Path], folder: Path) -> dict[str, Json]:
    """Build the store first: which donors and data sets there are decides what is held out."""
    if not data:
        raise InputError("no input was given; give one or more files, or none at all for a simulated atlas.")
    section = data_section(data)
    first = {
        "name": "demo",
        "out": ".",
        "data": section,
        "evaluation": [{"name": "all"}],
        "arms": {"all-data": {"components": [{"name": "all"}]}},
    }
    run_experiment(parse_experiment(first, base=folder.absolute()), upto="build")
    return own_experiment(section, open_store(folder / "atlas.mill"))


def _write_experiment(path: Path, content: Mapping[str, Json]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "# Written by `cellmill demo`. Change a copy and run that: only what a change reaches is done anew.\n"
    write_atomic(path, (head + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=110)).encode())


def _next_command(experiment: Path) -> str:
    """Return a line that can be typed as it is, also where the environment's commands are not on the PATH."""
    return f"{_program()} run {shlex.quote(str(experiment))}"


def _own_command(folder: Path) -> str:
    """Return the line for a file of one's own; in another folder, since this one holds the simulated cells."""
    other = folder.parent / f"{folder.resolve().name}-own"
    return f"{_program()} demo YOUR.h5ad --out {shlex.quote(str(other))}"


def _program() -> str:
    here = Path(sys.executable).with_name("cellmill")
    known = shutil.which("cellmill")
    return shlex.quote("cellmill" if known or not here.exists() else _short(here))


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
