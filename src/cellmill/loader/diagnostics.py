"""What a loader saw of itself (floor 6, loader): speed, waits, and how well labels are mixed. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.tokens import Batch

__all__ = ["Meter", "entropy_bits", "ideal_entropy_bits"]


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Return the entropy of a distribution in bits.

    Examples
    --------
    >>> entropy_bits(np.array([5, 5]))
    1.0
    """
    shares = counts[counts > 0] / max(1, int(counts.sum()))
    return float(-(shares * np.log2(shares)).sum())


def ideal_entropy_bits(counts: npt.NDArray[np.int64], batch_size: float) -> float:
    """Return the label entropy that batches of true random order have on average: H - (K - 1) / (2 m ln 2)."""
    n_labels = int((counts > 0).sum())
    return max(0.0, entropy_bits(counts) - (n_labels - 1) / (2 * batch_size * math.log(2))) if n_labels else 0.0


class Meter:
    """Adds up what batches cost and how labels lie in them."""

    def __init__(self) -> None:
        self.batches = 0
        self.cells = 0
        self.values = 0
        self.bytes = 0
        self.wait_seconds = 0.0
        self.seconds = 0.0
        self._counts: dict[str, npt.NDArray[np.int64]] = {}
        self._entropy: dict[str, float] = {}

    def add(self, batch: Batch, *, waited: float) -> None:
        """Count one batch that the consumer waited for, in seconds."""
        self.batches += 1
        self.cells += len(batch)
        self.values += batch.values.numel()
        self.bytes += sum(tensor.numel() * tensor.element_size() for _, tensor in batch.tensors())
        self.wait_seconds += waited
        for name, categories in batch.categories.items():
            codes = batch.obs[name].numpy()
            counts = np.bincount(codes[codes >= 0], minlength=len(categories)).astype(np.int64)
            self._counts[name] = self._counts.get(name, np.zeros_like(counts)) + counts
            self._entropy[name] = self._entropy.get(name, 0.0) + entropy_bits(counts)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        size = self.cells / self.batches if self.batches else 1.0
        labels: Mapping[str, Any] = {
            name: {
                "batch_bits": self._entropy[name] / self.batches,
                "ideal_bits": ideal_entropy_bits(counts, size),
                "all_bits": entropy_bits(counts),
            }
            for name, counts in self._counts.items()
        }
        return {
            "batches": self.batches,
            "cells": self.cells,
            "values": self.values,
            "bytes_in_tensors": self.bytes,
            "seconds": self.seconds,
            "cells_per_second": self.cells / self.seconds if self.seconds else 0.0,
            "wait_seconds": self.wait_seconds,
            "wait_share": self.wait_seconds / self.seconds if self.seconds else 0.0,
            "label_entropy": dict(labels),
        }
