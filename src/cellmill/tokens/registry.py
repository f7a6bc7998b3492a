"""Recipes by name (floor 5, tokens), for files and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
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

__all__ = ["RECIPES", "check_options", "recipe_named"]

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
    check_options(name, options)
    asked = inspect.signature(RECIPES[name]).parameters.values()
    needed = [one.name for one in asked if one.default is inspect.Parameter.empty and one.name not in options]
    if needed:
        raise ConfigError(
            f"the recipe {name} needs {' and '.join(needed)}; its page in docs/recipes says what that is. On the "
            f"command line a table may be a file, such as --set {needed[0]}=FILE"
        )
    recipe: Recipe = RECIPES[name](**options)
    return recipe


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuse names of recipes and of options that are not known.

    Raises
    ------
    ConfigError
        Naming the nearest.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; known are {', '.join(RECIPES)}.{nearest(name, RECIPES)}")
    known = list(inspect.signature(RECIPES[name]).parameters)
    for option in options:
        if option not in known:
            raise ConfigError(
                f"the recipe {name} has no option {option!r}; it has {', '.join(known)}.{nearest(option, known)}"
            )
