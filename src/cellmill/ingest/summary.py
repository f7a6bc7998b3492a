"""What became of an input, in one line (floor 4, pure): from its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellmill.units import count_text, plural, share_text

__all__ = ["summary_line"]


def summary_line(report: Mapping[str, Any]) -> str:
    """Return cells read and kept, genes matched, their share of all counts, and what is to be looked at.

    Examples
    --------
    >>> genes = {"n_genes": 2000, "matched": 1900, "share_matched": 0.95, "umi_share_matched": 0.998}
    >>> summary_line({"name": "a", "cells_read": 300, "n_cells": 120, "genes": genes, "warnings": ["..."]})
    'a: 300 cells read, 120 kept, 1,900 of 2,000 genes (95.0%) with 99.8% of their counts, 1 warning'
    """
    genes, read, kept = report["genes"], report.get("cells_read", report["n_cells"]), report["n_cells"]
    cells = f"{count_text(read)} cells" + ("" if read == kept else f" read, {count_text(kept)} kept")
    matched = f"{count_text(genes['matched'])} of {count_text(genes['n_genes'])} genes"
    matched += f" ({share_text(genes['share_matched'])})"
    share = genes.get("umi_share_matched")
    parts = [cells, matched if share is None else f"{matched} with {share_text(share)} of their counts"]
    left_out = sum(report.get("features_left_out", {}).values())
    if left_out:
        parts.append(f"{count_text(left_out)} feature{'s' if left_out > 1 else ''} left out as no genes")
    markers = report.get("markers_left_out", 0)
    if markers:
        parts.append(f"{plural(markers, 'marker')} before lists left out")
    rounded = report.get("rounded", {}).get("values", 0)
    if rounded:
        parts.append(f"{count_text(rounded)} values rounded")
    if report.get("warnings"):
        parts.append(f"{len(report['warnings'])} warning{'s' if len(report['warnings']) > 1 else ''}")
    return f"{report['name']}: {', '.join(parts)}"
