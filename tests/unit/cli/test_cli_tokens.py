"""`cellmill tokens`: what is shown is what the loader gives, with names that a person knows."""

from __future__ import annotations

import json

import pytest

import cellmill as cm
from cellmill.cli.tokens import token_rows
from cellmill.tokens import ScGPT


@pytest.mark.parametrize("recipe", ["scgpt", "tahoe", "csr", "dense"])
def test_preview_names_the_genes_of_cells(call, small_store, recipe):
    store = cm.open(small_store)
    result = call("tokens", "preview", str(small_store), "--recipe", recipe, "-n", "2", "--json")
    assert result.exit_code == 0
    cells = json.loads(result.stdout)
    counts = store.read([0, 1]).toarray()
    symbols = store.genes["symbol"].to_pylist()
    assert [cell["row"] for cell in cells] == [0, 1]
    for cell, row in zip(cells, counts, strict=True):
        there = {symbols[g] for g in row.nonzero()[0]}
        assert there <= set(cell["names"])
        assert cell["total"] == row.sum()
        if recipe == "tahoe":
            assert set(cell["names"]) == {*there, "<cls>"}


def test_preview_is_a_table_that_says_what_is_masked(call, small_store):
    said = call("tokens", "preview", str(small_store), "--recipe", "scgpt", "-n", "1", "--set", "mask=0.5").stdout
    assert "<cls>" in said
    assert "masked" in said
    row = token_rows(cm.open(small_store), ScGPT(mask=0.5), [0])[0]
    assert f"{sum(row['mask'])} masked" in said
    assert f"{row['length']} tokens" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "sgpt"], "Did you mean 'scgpt'?"),
        (["--recipe", "scgpt", "--set", "max_lenght=3"], "Did you mean 'max_length'?"),
        (["--recipe", "scgpt", "--set", "max_length"], "--set takes NAME=VALUE"),
        (["--recipe", "scgpt", "--set", "max_length=1"], "max_length must be a whole number of at least 2"),
        (["--recipe", "scgpt", "--where", "total_counts < 0"], "no cell meets"),
    ],
)
def test_what_cannot_be_meant_is_told(call, small_store, words, told):
    result = call("tokens", "preview", str(small_store), *words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def test_recipes_are_listed(call):
    assert set(json.loads(call("tokens", "list", "--json").stdout)) == set(cm.tokens.RECIPES)
