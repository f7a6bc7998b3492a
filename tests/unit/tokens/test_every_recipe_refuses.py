"""What no recipe takes, tried on each: numbers beyond reason, special tokens for genes, batches beyond memory."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.genes import Vocabulary
from cellmill.tokens import RECIPES, AidoCell, TokenBatch, recipe_named
from cellmill.tokens.cells import row_starts

COUNTS = sparse.csr_array(np.array([[1, 0, 2, 5], [0, 3, 1, 0]], dtype=np.uint32))
GENES, KEYS = np.arange(10, 14), np.arange(2).astype(np.uint64)
NEEDED: dict[str, dict[str, Any]] = {
    "hvg_panel": {"panel": [10, 11], "fill_to": 4},
    "geneformer": {"medians": np.ones(20)},
    "nicheformer": {"means": np.ones(20)},
    "uce": {"rows": np.arange(4, 24), "chromosomes": np.ones(20, int), "starts": np.arange(20), "sample_size": 4},
    "state_se": {"embedding": np.arange(20), "n_expressed": 2, "n_unexpressed": 2, "n_shared": 2},
}
LENGTHS = ("max_length", "multiple", "n_genes", "n_bins", "n_counts", "fill_to", "keep", "sample_size", "n_embeddings")
SIZES = (*LENGTHS, "n_expressed", "n_unexpressed", "n_shared", "min_genes", "max_genes", "seed", "offset")
TOKENS = ("pad_token", "cls_token", "end_token")
FLAGS = ("faithful", "binary", "cls", "include_zeros", "right", "keep_counts")


def options_of(name: str) -> set[str]:
    return set(inspect.signature(RECIPES[name]).parameters)


def each_with(options: tuple[str, ...]) -> pytest.MarkDecorator:
    pairs = [(name, option) for name in RECIPES for option in options if option in options_of(name)]
    assert {option for _, option in pairs} == set(options)
    return pytest.mark.parametrize(("name", "option"), pairs)


def made(name: str, **options: Any) -> Any:
    return recipe_named(name, **{**NEEDED.get(name, {}), **options})


def tensors_of(batch: TokenBatch) -> list[Any]:
    named = [getattr(batch, field) for field in ("values", "genes", "target", "mask", "lengths", "indptr")]
    return [None if one is None else one.tolist() for one in (*named, *batch.extra.values())]


@each_with(SIZES)
@pytest.mark.parametrize("value", [2**60, 2**62, 2**70, 2.0, True, "8", -1])
def test_sizes_that_cannot_be_meant_are_refused_by_name(name, option, value):
    with pytest.raises(ConfigError, match=option):
        made(name, **{option: value})


@each_with(TOKENS)
@pytest.mark.parametrize("value", [2**63, 1.5, -1])
def test_tokens_that_int64_cannot_hold_are_refused_by_name(name, option, value):
    with pytest.raises(ConfigError, match=option):
        made(name, **{option: value})


@each_with(FLAGS)
def test_what_is_yes_or_no_takes_no_other_word(name, option):
    with pytest.raises(ConfigError, match=option):
        made(name, **{option: "no"})


@each_with(("vocabulary",))
@pytest.mark.parametrize("value", ["human", 5, {"a": 1}])
def test_what_is_no_vocabulary_is_refused(name, option, value):
    with pytest.raises(ConfigError, match=r"vocabulary must be a cellmill\.Vocabulary"):
        made(name, **{option: value})


@each_with(("pad",))
def test_a_multiple_of_what_is_not_padded_is_refused(name, option):
    more = {"max_length": 8} if "max_length" in options_of(name) else {}
    with pytest.raises(ConfigError, match="multiple must be 1 with pad='none'"):
        made(name, **more, **{option: "none"}, multiple=8)


@each_with(("genes",))
@pytest.mark.parametrize("value", [5, 1.5, "ENSG1", {"ENSG1": 1}, {"ENSG1"}, [1, 2], ["ENSG1", None], b"ENSG1"])
def test_a_panel_that_is_no_list_of_ids_is_refused(name, option, value):
    with pytest.raises(ConfigError, match="genes must be a list of gene ids"):
        made(name, **{option: value})


@each_with(("genes",))
def test_a_panel_names_no_special_tokens(name, option):
    with pytest.raises(ConfigError, match=r"genes must name genes alone, found the special tokens <cls>, <unknown>"):
        made(name, **{option: ["ENSG1", "<cls>", "<unknown>"]})
    if "vocabulary" in options_of(name):
        own = {"<pad>": 0, "<cls>": 1, "<eos>": 2, "[MASK]": 3}
        with pytest.raises(ConfigError, match=r"special tokens \[MASK\]"):
            made(name, **{option: ["ENSG1", "[MASK]"]}, vocabulary=Vocabulary(["ENSG1"], specials=own))


@pytest.mark.parametrize("name", ["hvg_panel", "count_diffusion"])
def test_a_panel_of_tokens_holds_no_special_ones(name):
    vocabulary = Vocabulary(["ENSG1"], specials={"<pad>": 0, "<cls>": 1})
    for panel in (["ENSG1", "<cls>"], [2, 1]):
        with pytest.raises(ConfigError, match="panel must name genes alone, found the special tokens <cls>"):
            made(name, panel=panel, vocabulary=vocabulary)
    for panel in (5, None if name == "hvg_panel" else 1.5, [2**63], [2**70], [2, "ENSG1"]):
        with pytest.raises(ConfigError, match="panel"):
            made(name, panel=panel)


@pytest.mark.parametrize("name", list(RECIPES))
def test_lists_are_taken_for_arrays_and_tuples(name):
    recipe = made(name)
    expected = tensors_of(recipe.encode(COUNTS, GENES, KEYS))
    assert tensors_of(recipe.encode(COUNTS, GENES.tolist(), KEYS.tolist())) == expected
    if "genes" in options_of(name):
        listed, other = made(name, genes=["a", "b"]), made(name, genes=("a", "b"))
        assert listed == other == pickle.loads(pickle.dumps(listed))
        assert hash(listed) == hash(other)


@pytest.mark.parametrize("name", list(RECIPES))
def test_numbers_of_numpy_are_recorded_as_those_of_python(name):
    numbers = {
        option: np.asarray(one.default)[()]
        for option, one in inspect.signature(RECIPES[name]).parameters.items()
        if isinstance(one.default, int | float) and not isinstance(one.default, bool)
    }
    numbers |= NEEDED.get(name, {})
    assert json.dumps(made(name, **numbers).to_dict()) == json.dumps(made(name).to_dict())


@each_with(("multiple",))
def test_a_batch_that_nothing_can_hold_is_refused_with_what_to_do(name, option):
    longest = {"max_length": 2**31 - 1} if "max_length" in options_of(name) else {}
    recipe = made(name, **longest, **{option: 2**31 - 1})
    dense = np.zeros((2**15, 4), dtype=np.uint32)
    dense[0] = 1
    with pytest.raises(InputError, match="batch_size"):
        recipe.encode(sparse.csr_array(dense), GENES, np.zeros(2**15, np.uint64))


def test_want_of_memory_is_an_error_that_says_what_to_do():
    cells = sparse.csr_array((2**15, 4), dtype=np.uint32)  # 2^48 bytes are more than a process can address
    with pytest.raises(InputError, match="do not fit into memory: take fewer cells at once"):
        AidoCell(n_genes=2**31 - 1).encode(cells, GENES, np.zeros(2**15, np.uint64))


def test_rows_one_after_the_other_are_as_long_as_int32_counts():
    assert row_starts(np.array([2**31 - 2, 1]), 2**31 - 1, pad="none")[-1] == 2**31 - 1
    with pytest.raises(InputError, match="cu_seqlens"):
        row_starts(np.array([2**31 - 2, 2]), 2**31 - 1, pad="none")
