"""The demonstration (above the pipeline): cells to a report in one call, simulated or of one's own.

Knows the pipeline and the stores; nothing knows it but the command line. `run_demo` brings torch when it is first
asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellmill.demo.run import DemoResult as DemoResult
    from cellmill.demo.run import run_demo as run_demo

__all__ = ["DemoResult", "run_demo"]


def __getattr__(name: str) -> Any:
    """Bring what needs torch when it is first asked for (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("cellmill.demo.run"), name)
    raise AttributeError(f"module 'cellmill.demo' has no attribute {name!r}")
