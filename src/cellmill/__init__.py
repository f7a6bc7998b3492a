"""cellmill: from single-cell count matrices to training runs that can be named, resumed and compared.

The public face. Each name is imported when it is first used, so that `import cellmill` costs nothing: neither torch
nor anndata nor pandas is loaded by it. The names in `__all__` are the documented ones, and a test holds the list.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellmill import bench as bench
    from cellmill import demo as demo
    from cellmill import errors as errors
    from cellmill import events as events
    from cellmill import export as export
    from cellmill import genes as genes
    from cellmill import ingest as ingest
    from cellmill import kernel as kernel
    from cellmill import pipeline as pipeline
    from cellmill import simulate as simulate
    from cellmill import sources as sources
    from cellmill import statistics as statistics
    from cellmill import store as store
    from cellmill import tokens as tokens
    from cellmill.card import write_card as card
    from cellmill.evaluate import evaluate_run as evaluate
    from cellmill.genes import Vocabulary as Vocabulary
    from cellmill.ingest import append_inputs as append
    from cellmill.ingest import build as build
    from cellmill.ingest import build_vocabulary as build_vocabulary
    from cellmill.loader import Batch as Batch
    from cellmill.loader import Dataset as Dataset
    from cellmill.loader import Loader as Loader
    from cellmill.loader import accelerate as accelerate
    from cellmill.loader import lightning as lightning
    from cellmill.loader import scvi as scvi
    from cellmill.mixture import Balance as Balance
    from cellmill.mixture import Chunks as Chunks
    from cellmill.mixture import Component as Component
    from cellmill.mixture import Exclusion as Exclusion
    from cellmill.mixture import Mixture as Mixture
    from cellmill.mixture import Pairs as Pairs
    from cellmill.mixture import Plan as Plan
    from cellmill.mixture import Sets as Sets
    from cellmill.mixture import Split as Split
    from cellmill.pipeline import run_experiment as run
    from cellmill.statistics import hvg as hvg
    from cellmill.store import Store as Store
    from cellmill.store import merge_stores as merge
    from cellmill.store import open_store as open
    from cellmill.train import train_run as train

__all__ = [
    "Balance",
    "Batch",
    "Chunks",
    "Component",
    "Dataset",
    "Exclusion",
    "Loader",
    "Mixture",
    "Pairs",
    "Plan",
    "Sets",
    "Split",
    "Store",
    "Vocabulary",
    "__version__",
    "accelerate",
    "append",
    "build",
    "build_vocabulary",
    "card",
    "errors",
    "evaluate",
    "export",
    "hvg",
    "lightning",
    "merge",
    "open",
    "run",
    "scvi",
    "tokens",
    "train",
]

try:
    __version__ = importlib.metadata.version("cellmill")
except importlib.metadata.PackageNotFoundError:  # run from the source tree, not installed
    __version__ = "0.0.0+source"

# name -> (module, attribute in it); an attribute of "" means the module itself
_FACE: dict[str, tuple[str, str]] = {
    "Balance": ("cellmill.mixture", "Balance"),
    "Batch": ("cellmill.loader", "Batch"),
    "Chunks": ("cellmill.mixture", "Chunks"),
    "Component": ("cellmill.mixture", "Component"),
    "Dataset": ("cellmill.loader", "Dataset"),
    "Exclusion": ("cellmill.mixture", "Exclusion"),
    "Loader": ("cellmill.loader", "Loader"),
    "Mixture": ("cellmill.mixture", "Mixture"),
    "Pairs": ("cellmill.mixture", "Pairs"),
    "Plan": ("cellmill.mixture", "Plan"),
    "Sets": ("cellmill.mixture", "Sets"),
    "Split": ("cellmill.mixture", "Split"),
    "Store": ("cellmill.store", "Store"),
    "Vocabulary": ("cellmill.genes", "Vocabulary"),
    "accelerate": ("cellmill.loader.accelerate", ""),
    "append": ("cellmill.ingest", "append_inputs"),
    "build": ("cellmill.ingest", "build"),
    "build_vocabulary": ("cellmill.ingest", "build_vocabulary"),
    "hvg": ("cellmill.statistics", "hvg"),
    "lightning": ("cellmill.loader.lightning", ""),
    "merge": ("cellmill.store", "merge_stores"),
    "open": ("cellmill.store", "open_store"),
    "run": ("cellmill.pipeline", "run_experiment"),
    "scvi": ("cellmill.loader.scvi", ""),
}
_ROOMS = (
    *(
        "bench",
        "card",
        "demo",
        "errors",
        "evaluate",
        "events",
        "export",
        "genes",
        "ingest",
        "kernel",
        "loader",
        "mixture",
        "models",
        "page",
    ),
    *("pipeline", "simulate", "sources", "statistics", "storage", "store", "tokens", "train", "units"),
)


def __getattr__(name: str) -> Any:
    """Import a public name, or a submodule, when it is first asked for (PEP 562)."""
    if name in _ROOMS:
        return importlib.import_module(f"cellmill.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'cellmill' has no attribute {name!r}")
    module_name, attribute = _FACE[name]
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names and the submodules."""
    return sorted({*__all__, *_ROOMS, *globals()})
