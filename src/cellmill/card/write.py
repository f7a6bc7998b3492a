"""Writing a card (floor 7): one page and the same numbers as JSON, each in one rename."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cellmill.card.collect import collect_card
from cellmill.card.content import CardFiles
from cellmill.storage import write_atomic

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["write_card"]


def write_card(
    store: Store, path: str | Path, *, name: str | None = None, gene_cells: int = 100_000, threads: int = 0
) -> CardFiles:
    """Write the card of a store at `path` (HTML), and its numbers as JSON beside it; returns both paths.

    The page is one file: figures are drawn into it, nothing is fetched from anywhere.

    Parameters
    ----------
    name : str, optional
        What the store is called; its folder's name when not given.
    gene_cells : int
        Means and variances of genes are taken over that many cells, evenly spaced over the store.
    threads : int
        0 for one per core.

    Raises
    ------
    MissingDependencyError
        When matplotlib or jinja2 is not installed (extra `report`).
    CorruptStoreError
        When obs or a report of the store is damaged.

    Examples
    --------
    >>> cm.card(store, "atlas.html")  # doctest: +SKIP
    """
    page = importlib.import_module("cellmill.card.page")  # the one module that needs matplotlib and jinja2
    data = collect_card(store, name=name, gene_cells=gene_cells, threads=threads)
    target = Path(path)
    files = CardFiles(target, target.with_suffix(".json"))
    html: str = page.render_card(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(files.json, (text + "\n").encode())
    write_atomic(files.html, html.encode())
    return files
