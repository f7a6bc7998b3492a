"""Recipes by name (floor 5, tokens), for files and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cellmill.errors import ConfigError, nearest
from cellmill.tokens.aido import AidoCell
from cellmill.tokens.cell2sentence import Cell2Sentence
from cellmill.tokens.cellfm import CellFM
from cellmill.tokens.count_diffusion import CountDiffusion
from cellmill.tokens.csr import CSR
from cellmill.tokens.dense import Dense
from cellmill.tokens.geneformer import Geneformer
from cellmill.tokens.hvg_panel import HVGPanel
from cellmill.tokens.nicheformer import Nicheformer
from cellmill.tokens.recipe import Recipe
from cellmill.tokens.scfoundation import ScFoundation
from cellmill.tokens.scgpt import ScGPT
from cellmill.tokens.state_se import StateSE
from cellmill.tokens.tahoe import Tahoe
from cellmill.tokens.transcriptformer import TranscriptFormer
from cellmill.tokens.uce import UCE

__all__ = ["RECIPES", "recipe_named"]

RECIPES: Mapping[str, Any] = MappingProxyType(
    {
        "csr": CSR,
        "dense": Dense,
        "count_diffusion": CountDiffusion,
        "hvg_panel": HVGPanel,
        "scgpt": ScGPT,
        "tahoe": Tahoe,
        "geneformer": Geneformer,
        "scfoundation": ScFoundation,
        "aido_cell": AidoCell,
        "transcriptformer": TranscriptFormer,
        "cellfm": CellFM,
        "uce": UCE,
        "state_se": StateSE,
        "nicheformer": Nicheformer,
        "cell2sentence": Cell2Sentence,
    }
)


def recipe_named(name: str, **options: Any) -> Recipe:
    """Return a recipe by its name, such as "scgpt", with its options.

    Raises
    ------
    ConfigError
        For a name or an option that is not known, naming the nearest.

    Examples
    --------
    >>> recipe_named("scgpt", max_length=600).max_length
    600
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; known are {', '.join(RECIPES)}.{nearest(name, RECIPES)}")
    made = RECIPES[name]
    known = list(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            raise ConfigError(
                f"the recipe {name} has no option {option!r}; it has {', '.join(known)}.{nearest(option, known)}"
            )
    try:
        recipe: Recipe = made(**options)
    except TypeError as error:  # what it cannot do without, such as a table of medians
        raise ConfigError(f"the recipe {name} cannot be made of these options: {error}") from None
    return recipe
