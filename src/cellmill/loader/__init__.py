"""The loader (floor 6): order -> gather -> tokens -> torch batch, with a state of one number.

Knows plans, stores, recipes and torch; knows no model. `lightning` and `scvi` adapt it and import their libraries.
"""

from __future__ import annotations

import cellmill.tokens  # first: says which extra is missing where torch is
from cellmill.loader.dataset import Dataset
from cellmill.loader.loader import Loader
from cellmill.loader.reader import Reader

Batch = cellmill.tokens.Batch

__all__ = ["Batch", "Dataset", "Loader", "Reader"]
