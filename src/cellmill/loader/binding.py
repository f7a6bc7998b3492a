"""A recipe of tokens and the stores it reads (floor 6, loader): whose tokens genes have, which genes were measured.

Knows vocabularies and gene ids. Reads no counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cellmill.errors import CorruptStoreError, StoreError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.loader.axis import GeneAxis
from cellmill.store import Store
from cellmill.store.measured import measured_by_source
from cellmill.tokens import Recipe

__all__ = ["Measured", "bind_axis", "bind_recipe", "measured_of", "warn_of_few"]

I64 = npt.NDArray[np.int64]


def bind_recipe(recipe: Recipe, stores: Sequence[Store]) -> Recipe:
    """Return the recipe with the vocabulary of the stores, where it makes tokens and was given none.

    Raises
    ------
    VocabularyError
        When the stores have several vocabularies, whose tokens would mean different genes, or when theirs lacks a
        special token that the recipe needs.
    """
    made: Any = recipe
    if not is_dataclass(made) or not hasattr(made, "vocabulary") or made.vocabulary is not None or not stores:
        return recipe
    hashes = {store.manifest.vocabulary_hash for store in stores}
    if len(hashes) > 1:
        told = ", ".join(f"{store.location}: {store.manifest.vocabulary_hash[:12]}" for store in stores)
        raise VocabularyError(
            f"the stores have different vocabularies ({told}), so one token would mean several genes. Say whose tokens "
            f"are meant: {type(recipe).__name__}(vocabulary=cellmill.Vocabulary.load(...))"
        )
    if hasattr(made, "bound_to"):
        return cast(Recipe, made.bound_to(stores[0].vocabulary))
    if hasattr(made, "vocabulary_hash"):  # its tables are over tokens already: those of the stores
        return recipe
    return cast(Recipe, replace(cast(Any, recipe), vocabulary=stores[0].vocabulary))


def bind_axis(axis: GeneAxis, stores: Sequence[Store], vocabulary: Vocabulary | None) -> GeneAxis:
    """Return the axis with the tokens of a vocabulary: by gene id, or by symbol where more of these are in it.

    Genes that it lacks keep their columns, with token -1, which recipes leave out.

    Raises
    ------
    VocabularyError
        When it knows none of the genes.
    """
    if vocabulary is None or all(store.manifest.vocabulary_hash == vocabulary.hash for store in stores):
        return axis
    by_id = vocabulary.index_of(axis.gene_ids)
    symbol_of: dict[str, str] = {}
    for store in reversed(stores):
        columns = store.genes.select(["gene_id", "symbol"])
        symbol_of |= dict(zip(columns[0].to_pylist(), columns[1].to_pylist(), strict=True))
    by_symbol = vocabulary.index_of([symbol_of.get(gene, "") for gene in axis.gene_ids])
    found = by_id if (by_id >= 0).sum() >= (by_symbol >= 0).sum() else by_symbol
    if not (found >= 0).any():
        raise VocabularyError(
            f"the vocabulary of the recipe ({len(vocabulary):,} genes, such as {', '.join(vocabulary.ids[:3])}) has "
            f"none of the genes of the stores (such as {', '.join(axis.gene_ids[:3])}), neither by id nor by symbol"
        )
    first = np.full(len(found), True)
    known = np.flatnonzero(found >= 0)
    first[known] = False
    first[known[np.unique(found[known], return_index=True)[1]]] = True  # two genes of one symbol: the first one has it
    tokens = np.where((found >= 0) & first, np.asarray(vocabulary.tokens)[np.maximum(found, 0)], -1)
    return replace(axis, tokens=tokens.astype(np.int64))


FEW = 0.1  # a share of a store's genes below which its cells cannot be meant to be read so


def warn_of_few(axis: GeneAxis, recipe: Recipe, stores: Sequence[Store]) -> None:
    """Warn of stores of whose genes the recipe knows hardly any: their cells would be nearly empty rows.

    Panels are left alone: they are meant to be few, and genes that are missing are refused elsewhere.
    """
    if getattr(recipe, "panel", None) is not None or recipe.genes is not None:
        return
    numbers_of = getattr(recipe, "numbers_of", None)
    known = (axis.tokens if numbers_of is None else np.asarray(numbers_of(axis.tokens))) >= 0
    for store, panel in zip(stores, axis.panels, strict=True):
        own = known if panel is None else known[panel[panel >= 0]]
        if len(own) and own.mean() < FEW:
            warnings.warn(
                f"{store.location}: {int(own.sum()):,} of {len(own):,} genes ({own.mean():.1%}) are known to "
                f"{type(recipe).__name__}, so its cells are nearly empty; is the vocabulary or the table that of other "
                "genes?",
                UserWarning,
                stacklevel=4,
            )


@dataclass(frozen=True)
class Measured:
    """Which genes of an axis were measured, by source.

    Attributes
    ----------
    genes : uint8[n_kinds, n_columns]
        Each set of genes once, however many sources measured it.
    kind_of : tuple of int64[n_sources]
        For each store, the row of `genes` of each of its sources.
    """

    genes: npt.NDArray[np.uint8]
    kind_of: tuple[I64, ...]

    @classmethod
    def of(cls, stores: Sequence[Store], axis: GeneAxis) -> Measured:
        """Read the records of all stores.

        Raises
        ------
        StoreError
            When a source was added before this was kept.
        """
        kinds: dict[bytes, int] = {}
        kind_of = []
        for store, panel in zip(stores, axis.panels, strict=True):
            codes = []
            for own in measured_by_source(store):  # a source at a time: ten thousand would be gigabytes
                here = np.zeros(len(axis), dtype=np.uint8)
                columns = np.arange(len(own)) if panel is None else panel
                here[columns[own & (columns >= 0)]] = 1
                codes.append(kinds.setdefault(here.tobytes(), len(kinds)))
            kind_of.append(np.array(codes, dtype=np.int64))
        rows = [np.frombuffer(kind, dtype=np.uint8) for kind in kinds]
        return cls(np.stack(rows) if rows else np.zeros((0, len(axis)), dtype=np.uint8), tuple(kind_of))

    def of_cells(self, stores: Sequence[Store], store: I64, row: I64) -> tuple[npt.NDArray[np.uint8], I64]:
        """Return `genes`, and for each cell of a batch its row there."""
        codes = np.empty(len(row), dtype=np.int64)
        for code in np.unique(store):
            here = store == code
            codes[here] = self.kind_of[code][stores[code].source_of(row[here])]
        return self.genes, codes


def measured_of(recipe: Recipe, stores: Sequence[Store], axis: GeneAxis) -> Measured | None:
    """Return what a recipe is to be told of measured genes; None for one that does not ask.

    A recipe that fills rows up cannot go on without; of one that has unmeasured genes apart from zeros, all genes of a
    store that was written before this was kept count as measured, with a warning.
    """
    if getattr(recipe, "fill", None) == "unexpressed":
        return Measured.of(stores, axis)
    if not getattr(recipe, "wants_measured", False):
        return None
    try:
        return Measured.of(stores, axis)
    except CorruptStoreError:
        raise
    except StoreError as error:
        told = (
            f"{error} Until then all genes of the store count as measured, and zeros of those that were not as zeros."
        )
        warnings.warn(told, UserWarning, stacklevel=4)
        return None
