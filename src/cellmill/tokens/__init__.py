"""Recipes (floor 5, tokens): raw counts in, what a family of models is fed out; one file each.

Knows counts, vocabulary tokens and one key per cell. Never opens a file; knows no store, plan or order.
"""

from __future__ import annotations

from cellmill.tokens.aido import AidoCell
from cellmill.tokens.batch import Batch, TokenBatch
from cellmill.tokens.cell2sentence import Cell2Sentence
from cellmill.tokens.cellfm import CellFM
from cellmill.tokens.context import Context, Depth
from cellmill.tokens.count_diffusion import CountDiffusion
from cellmill.tokens.csr import CSR
from cellmill.tokens.dense import Dense, DenseType, Transform
from cellmill.tokens.geneformer import Geneformer
from cellmill.tokens.hvg_panel import HVGPanel
from cellmill.tokens.nicheformer import Nicheformer
from cellmill.tokens.recipe import Recipe
from cellmill.tokens.registry import RECIPES, recipe_named
from cellmill.tokens.scfoundation import ScFoundation
from cellmill.tokens.scgpt import ScGPT
from cellmill.tokens.state_se import StateSE
from cellmill.tokens.tahoe import Tahoe
from cellmill.tokens.transcriptformer import TranscriptFormer
from cellmill.tokens.uce import UCE
from cellmill.tokens.words import clean_sentence, expression_of_sentence, word_counts

__all__ = [
    "CSR",
    "RECIPES",
    "UCE",
    "AidoCell",
    "Batch",
    "Cell2Sentence",
    "CellFM",
    "Context",
    "CountDiffusion",
    "Dense",
    "DenseType",
    "Depth",
    "Geneformer",
    "HVGPanel",
    "Nicheformer",
    "Recipe",
    "ScFoundation",
    "ScGPT",
    "StateSE",
    "Tahoe",
    "TokenBatch",
    "TranscriptFormer",
    "Transform",
    "clean_sentence",
    "expression_of_sentence",
    "recipe_named",
    "word_counts",
]
