"""The systems that are compared, by name: each file knows one of them, and the libraries it needs.

A worker (`../worker.py`) imports one system only, so that none pays for the imports of another.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from systems.base import System

_CLASSES = {
    "cellmill": ("systems.cellmill_store", "CellmillStore"),
    "memory": ("systems.plain", "CsrInMemory"),
    "memmap": ("systems.plain", "CsrMemoryMap"),
    "h5ad": ("systems.h5ad_backed", "H5adBacked"),
    "cellstream": ("systems.cellstream_archive", "CellstreamArchive"),
    "scdl": ("systems.scdl", "Scdl"),
    "hf": ("systems.hf_arrow", "HfArrow"),
    "mds": ("systems.mds", "Mds"),
    "annbatch": ("systems.annbatch_collection", "AnnbatchCollection"),
}


def load_system(name: str, place: Path) -> System:
    """Return a system, its libraries imported; ImportError when one of them is not installed."""
    module, cls = _CLASSES[name]
    system: System = getattr(importlib.import_module(module), cls)(place)
    return system
