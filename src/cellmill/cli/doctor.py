"""`cellmill doctor`: what is installed, which kernel runs, what the machine has, and how to mend what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson
from cellmill.cli.progress import drawn
from cellmill.errors import CellmillError, MissingDependencyError
from cellmill.events import emit
from cellmill.storage import free_bytes, total_memory
from cellmill.storage.cache import Cache
from cellmill.units import size_text

__all__ = ["EPILOG", "EXTRAS", "Diagnosis", "diagnose", "doctor"]

EPILOG = examples("cellmill doctor", "cellmill doctor --imports", "cellmill doctor --json")

_REQUIRED = ("duckdb", "h5py", "numpy", "pyarrow", "pydantic", "pyyaml", "rich", "scipy", "typer", "xxhash")
# extra -> the distributions that it brings, as in pyproject.toml
EXTRAS: dict[str, tuple[str, ...]] = {
    "anndata": ("anndata",),
    "torch": ("torch", "safetensors"),
    "scvi": ("torch", "safetensors", "scvi-tools", "lightning"),
    "accelerate": ("torch", "safetensors", "accelerate"),
    "report": ("matplotlib", "jinja2"),
    "cloud": ("obstore",),
    "dask": ("distributed",),
    "filters": ("hdf5plugin",),
    "hvg": ("scikit-misc",),
    "sketch": ("geosketch",),
    "zarr": ("zarr",),
}
# distribution -> its module, where they are not called alike
_MODULES = {"pyyaml": "yaml", "scikit-misc": "skmisc", "scvi-tools": "scvi"}
_IMPORT_SECONDS = 120


@dataclass(frozen=True)
class ExtraState:
    """One optional extra: what it brings, what is there, and what is there but cannot be imported, with the reason."""

    name: str
    versions: dict[str, str | None]
    install: str
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether everything it needs is installed and can be imported."""
        return all(version is not None for version in self.versions.values()) and not self.broken


@dataclass(frozen=True)
class Diagnosis:
    """What `cellmill doctor` found.

    Attributes
    ----------
    kernel : str
        "native" (C++) or "reference" (NumPy).
    kernel_decoder : str or None
        With which vectors the native kernel decodes: "avx512", "avx2", or "plain" where the processor has neither.
    kernel_reason : str or None
        Why the native kernel is not in use.
    kernel_advice : str or None
        What to do about it.
    n_cores : int
        Cores that this process may use.
    memory_bytes : int or None
        Memory that this process may use, the limit of its container included.
    free_disk_bytes : int
        Free in the folder of work.
    cache, cache_bytes, cache_limit_bytes : Path, int, int
        Where what is read from URLs is kept, how much lies there, and how much may.
    """

    cellmill: str
    python: str
    system: str
    kernel: str
    kernel_decoder: str | None
    kernel_reason: str | None
    kernel_advice: str | None
    n_cores: int
    memory_bytes: int | None
    folder: Path
    free_disk_bytes: int
    cache: Path
    cache_bytes: int
    cache_limit_bytes: int
    packages: dict[str, str | None]
    extras: tuple[ExtraState, ...]

    @property
    def advice(self) -> list[str]:
        """What could be mended, most important first."""
        advice = [
            f"{name} is missing: pip install {name}" for name, version in self.packages.items() if version is None
        ]
        if self.kernel_advice:
            advice.append(self.kernel_advice)
        for extra in self.extras:
            if not extra.is_complete:
                missing = ", ".join(name for name, version in extra.versions.items() if version is None)
                states = [f"{missing} not installed"] if missing else []
                states += [f"{name} cannot be imported ({reason})" for name, reason in extra.broken.items()]
                again = "" if missing else " --force-reinstall"
                advice.append(f"{extra.name}: {', '.join(states)}; in the source's folder: {extra.install}{again}")
        return advice


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _import_fault(modules: str) -> str | None:
    """Return why modules cannot be imported, or None; in a process of its own, which a broken library may end."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", f"import {modules}"],
            capture_output=True, text=True, errors="replace", timeout=_IMPORT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took more than {_IMPORT_SECONDS} seconds"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"Python ended with {done.returncode}"


def _import_faults(distributions: Sequence[str]) -> dict[str, str]:
    modules = {name: _MODULES.get(name, name) for name in distributions if _version(name) is not None}
    emit("trying to import what is installed")
    if not modules or _import_fault(", ".join(modules.values())) is None:  # the usual case, and the quick one
        return {}
    with ThreadPoolExecutor() as pool:
        found = pool.map(_import_fault, modules.values())
        return {name: fault for name, fault in zip(modules, found, strict=True) if fault is not None}


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kernel() -> tuple[str, str | None, str | None]:
    try:
        name, reason = cm.kernel.IMPLEMENTATION, cm.kernel.native_error()
    except CellmillError as error:  # CELLMILL_KERNEL asks for what cannot be
        return "missing", str(error), "Unset CELLMILL_KERNEL: nothing that reads or writes counts works as it is set."
    except ImportError as error:
        return "missing", str(error), "Install cellmill again, in its source's folder: pip install --force-reinstall ."
    if name == "native":
        return name, None, None
    if os.environ.get("CELLMILL_KERNEL", "").casefold() == "reference":
        return name, reason, "CELLMILL_KERNEL=reference is set: unset it to use the native kernel."
    advice = "Reading is slower without the native kernel. "
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        return (
            name,
            reason,
            advice + "A C++ compiler is there: install cellmill again (`make setup`, or `pip install .`).",
        )
    return name, reason, advice + "Install a C++20 compiler (Debian: apt install g++), then install cellmill again."


def diagnose(folder: Path | None = None, *, imports: bool = False) -> Diagnosis:
    """Return what is installed and what this machine has.

    Parameters
    ----------
    folder : Path, optional
        The folder whose free space is of interest; the current one by default.
    imports : bool
        Whether to import what is installed, which finds broken libraries and takes 10 seconds or more.
    """
    folder = folder or Path.cwd()
    kernel, reason, advice = _kernel()
    faults = _import_faults([name for brings in EXTRAS.values() for name in brings]) if imports else {}
    extras = tuple(
        ExtraState(
            name,
            {one: _version(one) for one in brings},
            MissingDependencyError.install_line(name),
            {one: faults[one] for one in brings if one in faults},
        )
        for name, brings in EXTRAS.items()
    )
    cache = Cache()
    return Diagnosis(
        cellmill=cm.__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        kernel=kernel,
        kernel_decoder=cm.kernel.vectors() if kernel == "native" else None,
        kernel_reason=reason,
        kernel_advice=advice,
        n_cores=_n_cores(),
        memory_bytes=total_memory(),
        folder=folder,
        free_disk_bytes=free_bytes(folder),
        cache=cache.folder,
        cache_bytes=cache.usage().n_bytes,
        cache_limit_bytes=cache.limit_bytes,
        packages={name: _version(name) for name in _REQUIRED},
        extras=extras,
    )


def _show(found: Diagnosis, *, imported: bool) -> None:
    kernel = Text(found.kernel, style="green" if found.kernel == "native" else "yellow")
    if found.kernel_decoder:
        kernel.append(f", decoder {found.kernel_decoder}")
    if found.kernel_reason:
        kernel.append(f" ({found.kernel_reason})", style="dim")
    show_facts(
        "cellmill doctor",
        {
            "cellmill": found.cellmill,
            "Python": f"{found.python} ({sys.executable})",
            "system": found.system,
            "kernel": kernel,
            "cores": found.n_cores,
            "memory": size_text(found.memory_bytes) if found.memory_bytes else "not known",
            "free disk": f"{size_text(found.free_disk_bytes)} in {found.folder}",
            "cache of URLs": f"{size_text(found.cache_bytes)} of {size_text(found.cache_limit_bytes)} in {found.cache}",
        },
    )
    rows = [[name, version or "missing", "always"] for name, version in found.packages.items()]
    optional: dict[str, list[str]] = {}
    for extra in found.extras:
        for name in extra.versions:
            optional.setdefault(name, []).append(extra.name)
    versions = {name: version for extra in found.extras for name, version in extra.versions.items()}
    broken = {name for extra in found.extras for name in extra.broken}
    rows += [
        [name, f"{versions[name]}, broken" if name in broken else versions[name] or "missing", ", ".join(names)]
        for name, names in optional.items()
    ]
    show_table(["package", "version", "needed by"], rows)
    out = console()
    for line in found.advice:
        out.print(Text.assemble(("! ", "yellow"), line), soft_wrap=True)
    if not found.advice:
        out.print(Text("Everything is in place.", style="green"))
    if not imported:
        out.print(Text("Versions were looked up; cellmill doctor --imports also tries to import them.", style="dim"))


def doctor(
    as_json: AsJson = False,
    imports: Annotated[
        bool, typer.Option("--imports", help="Import what is installed, to find broken libraries; 10 seconds or more.")
    ] = False,
) -> None:
    """Print versions, the kernel in use, cores, memory and disk, and how to install what is missing."""
    with drawn():
        found = diagnose(imports=imports)
    if as_json:
        extras = {
            one.name: {
                "complete": one.is_complete,
                "versions": one.versions,
                "broken": one.broken,
                "install": one.install,
            }
            for one in found.extras
        }
        print_json({**vars(found), "extras": extras, "advice": found.advice})
    else:
        _show(found, imported=imports)
