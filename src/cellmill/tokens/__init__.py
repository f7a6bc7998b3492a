"""Recipes (floor 5, tokens): raw counts in, what a family of models is fed out; one file each.

Knows counts, vocabulary tokens and one key per cell. Never opens a file; knows no store, plan or order.
"""

from __future__ import annotations

from cellmill.tokens.batch import Batch, TokenBatch
from cellmill.tokens.count_diffusion import CountDiffusion
from cellmill.tokens.csr import CSR
from cellmill.tokens.dense import Dense, DenseType, Transform
from cellmill.tokens.hvg_panel import HVGPanel
from cellmill.tokens.recipe import Recipe
from cellmill.tokens.state_se import StateSE
from cellmill.tokens.uce import UCE

__all__ = [
    "CSR",
    "UCE",
    "Batch",
    "CountDiffusion",
    "Dense",
    "DenseType",
    "HVGPanel",
    "Recipe",
    "StateSE",
    "TokenBatch",
    "Transform",
]
