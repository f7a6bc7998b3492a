"""Models that cellmill trains (floor 6): one file per kind, plain torch inside, and how they are kept.

Knows tensors and how a model is built, saved and asked; must not know stores, mixtures or how training goes.
Imports torch.
"""

from __future__ import annotations

from cellmill.models.checkpoint import LoadedModel, load, save
from cellmill.models.ldvae import LdvaeConfig, build_ldvae

__all__ = ["LdvaeConfig", "LoadedModel", "build_ldvae", "load", "save"]
