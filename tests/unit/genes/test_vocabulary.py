from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import xxhash

from cellmill.errors import NotFoundError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.genes import vocabulary as vocabulary_module

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
SHARED = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared"))


def test_tokens_avoid_the_special_ones() -> None:
    vocabulary = Vocabulary(["a", "b", "c"], specials={"<pad>": 0, "<cls>": 2})
    assert vocabulary.tokens.tolist() == [1, 3, 4]
    assert vocabulary.tokens.dtype == np.int64
    assert Vocabulary(["a", "b"]).tokens.tolist() == [0, 1]


def test_it_cannot_be_changed() -> None:
    vocabulary = Vocabulary(["a", "b"], specials={"<pad>": 0})
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.tokens[0] = 9
    with pytest.raises(TypeError):
        vocabulary.specials["<cls>"] = 5  # type: ignore[index]
    with pytest.raises(AttributeError):
        vocabulary.ids = ("c",)  # type: ignore[misc]


def test_membership_length_and_positions() -> None:
    vocabulary = Vocabulary(["a", "b"], symbols=["A", "B"])
    assert len(vocabulary) == 2
    assert "a" in vocabulary
    assert "A" not in vocabulary
    assert vocabulary.index_of(["b", "x", "a"]).tolist() == [1, -1, 0]
    assert vocabulary.symbols == ("A", "B")


def test_the_hash_is_of_ids_tokens_and_specials() -> None:
    base = Vocabulary(["a", "b"], tokens=[5, 6], specials={"<pad>": 0})
    canonical = b'{"ids":["a","b"],"specials":{"<pad>":0},"tokens":[5,6]}'
    assert base.hash == xxhash.xxh3_128_hexdigest(canonical)
    assert base == Vocabulary(["a", "b"], tokens=[5, 6], specials={"<pad>": 0}, symbols=["A", "B"], name="other")
    for other in (
        Vocabulary(["b", "a"], tokens=[5, 6], specials={"<pad>": 0}),
        Vocabulary(["a", "b"], tokens=[6, 5], specials={"<pad>": 0}),
        Vocabulary(["a", "b"], tokens=[5, 6], specials={"<pad>": 1}),
        Vocabulary(["a", "b"], tokens=[5, 6]),
    ):
        assert other.hash != base.hash
        assert other != base


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ["a", "b", "a"]}, r"'a' is given twice, at positions 0 and 2"),
        ({"ids": ["a", "b"], "tokens": [1, 1]}, "token 1 is given twice"),
        ({"ids": ["a"], "tokens": [0], "specials": {"<pad>": 0}}, "token 0 is given twice"),
        ({"ids": ["<pad>"], "specials": {"<pad>": 0}}, "'<pad>' is given twice"),
        ({"ids": ["a"], "tokens": [-1]}, "negative"),
        ({"ids": ["a", ""]}, "position 1 is empty"),
        ({"ids": ["a"], "tokens": [1, 2]}, "1 gene ids but 2 tokens"),
        ({"ids": ["a"], "symbols": []}, "1 gene ids but 0 symbols"),
        ({"ids": ["a", "b"], "tokens": [1.7, 2.2]}, "token at position 0 is 1.7; expected a whole number"),
        ({"ids": ["a", "b"], "tokens": np.array([1.0, 2.0])}, "expected a whole number"),
        ({"ids": ["a", "b"], "tokens": [1, "2"]}, "token at position 1 is '2'"),
        ({"ids": ["a", "b"], "tokens": [True, 2]}, "token at position 0 is True"),
        ({"ids": ["a", "b"], "tokens": "12"}, "tokens are given as str"),
        ({"ids": ["a"], "tokens": [2**70]}, "too large; the largest token is 9223372036854775807"),
        ({"ids": "ab"}, "gene ids are given as str; expected a list"),
        ({"ids": {"a": 1, "b": 2}}, "gene ids are given as dict"),
        ({"ids": [1, 2]}, "gene id at position 0 is no text but 1"),
        ({"ids": ["\ud800"]}, "UTF-8"),
        ({"ids": ["a"], "symbols": [1]}, "symbol at position 0 is no text"),
        ({"ids": ["a"], "symbols": "x"}, "symbols are given as str"),
        ({"ids": ["a"], "specials": []}, r"special tokens are \[\]; expected a map"),
        ({"ids": ["a"], "specials": {"<x>": 1.5}}, "special token at position 0 is 1.5"),
        ({"ids": ["a"], "specials": {"<x>": 2**70}}, "too large"),
        ({"ids": ["a"], "specials": {1: 1}}, "special token at position 0 is no text"),
    ],
)
def test_what_is_malformed_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(**arguments)  # type: ignore[arg-type]


def test_json_gives_back_the_same_vocabulary(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["a", "b"], tokens=[7, 3], symbols=["A", "ß"], specials={"<pad>": 0}, name="mine")
    vocabulary.to_json(tmp_path / "v.json")
    again = Vocabulary.load(tmp_path / "v.json")
    assert again == vocabulary
    assert (again.symbols, again.name, dict(again.specials)) == (("A", "ß"), "mine", {"<pad>": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary  # what worker processes do


def test_a_changed_file_is_found_out(tmp_path: Path) -> None:
    content = Vocabulary(["a", "b"]).to_dict()
    content["ids"] = ["b", "a"]
    with pytest.raises(VocabularyError, match="changed after it was written"):
        Vocabulary.from_json(content)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": [1.7, 2.2]},
        {"tokens": ["1", "2"]},
        {"tokens": [True, 2]},
        {"tokens": [2**70, 1]},
        {"tokens": None},
        {"tokens": {"a": 1, "b": 2}},
        {"ids": "ab"},
        {"ids": {"a": 1, "b": 2}},
        {"ids": [1, 2]},
        {"ids": ["a", None]},
        {"symbols": "AB"},
        {"symbols": [1, 2]},
        {"specials": []},
        {"specials": None},
        {"specials": {"<pad>": 0.5}},
        {"specials": {"<pad>": "0"}},
        {"name": 5},
        {"hash": 5},
        {"hash": None},
    ],
    ids=str,
)
def test_nothing_in_a_vocabulary_file_is_coerced(tmp_path: Path, change: dict[str, object]) -> None:
    content = {"format": "cellmill-vocabulary/1", "specials": {}, "ids": ["a", "b"], "tokens": [1, 2]}
    assert Vocabulary.from_json(content).tokens.tolist() == [1, 2]
    path = tmp_path / "v.json"
    path.write_text(json.dumps({**content, **change}))
    for source in ({**content, **change}, path):
        with pytest.raises(VocabularyError):
            Vocabulary.from_json(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"a": ' * 100_000, "nested too deeply", id="deep"),
        pytest.param('{"a": 1' + "0" * 9_999 + "}", "no JSON file", id="long number"),
        ('{"a": 1' + "0" * 30 + "}", "'a' is too large"),
        ("{", "no JSON file"),
        ("[1, 2]", "holds a JSON list"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": 1, "b": 1}', "token 1 is given twice"),
        ('{"a": "x"}', "expected a map|Expected a map"),
        ('{"a": true}', "Expected a map"),
        ('{"format": "cellmill-vocabulary/1", "ids": []}', "has no 'tokens'"),
    ],
)
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(VocabularyError, match=message) as caught:
        Vocabulary.from_json(path)
    assert "foreign" in str(caught.value)


def test_nothing_at_the_path_is_said_with_what_is_shipped() -> None:
    with pytest.raises(NotFoundError, match=r"neither a file nor one of human, mouse. Did you mean 'mouse'"):
        Vocabulary.load("muse")


def test_the_shipped_vocabularies_are_frozen() -> None:
    human, mouse = Vocabulary.load("human"), Vocabulary.load("mouse")
    assert (len(human), len(mouse)) == (82_065, 78_339)
    assert human.tokens[0] == len(human.specials) == 4
    assert dict(human.specials) == {"<pad>": 0, "<cls>": 1, "<eoc>": 2, "<mask>": 3}
    assert human.hash == "c2111d57a4eaff0d70418cb4118efe80"
    assert mouse.hash == "944cceb7bee21f9469ea25ce75b9008b"


@pytest.mark.parametrize(
    "name", ["scgpt_default_census", "scgpt_default_gene", "mosaicfm_default_census", "mosaicfm_default_gene"]
)
def test_published_vocabularies_are_read_token_for_token(name: str) -> None:
    path = SHARED / "vocab" / f"{name}_vocab.json"
    if not path.exists():
        pytest.skip(f"no published vocabulary at {path}")
    published = json.loads(path.read_text())
    vocabulary = Vocabulary.from_json(path)
    read = dict(zip(vocabulary.ids, vocabulary.tokens.tolist(), strict=True)) | dict(vocabulary.specials)
    assert read == published
    assert vocabulary.tokens.tolist() == sorted(vocabulary.tokens.tolist())


@pytest.mark.parametrize(
    "content",
    [
        {"format": "f", "ids": ["ä", 'a"b', "c, d"], "tokens": [1, 2], "symbols": None, "specials": {}},
        {"ids": [], "specials": {"<pad>": 0, "<cls>": 7}},
    ],
)
def test_a_vocabulary_file_is_what_json_would_indent(content):
    assert vocabulary_module._lines_of(content) == json.dumps(content, ensure_ascii=False, indent=0)
