"""`cellmill tokens`: what is shown is what the loader gives, with names that a person knows."""

from __future__ import annotations

import collections
import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
        (["--recipe", "geneformer"], "the recipe geneformer needs medians"),
        (["--recipe", "scgpt", "--set", "medians=none.csv"], "the recipe scgpt has no option 'medians'"),
        (["--recipe", "scgpt", "--where", "total_counts < 0"], "no cell meets"),
    ],
)
def test_what_cannot_be_meant_is_told(call, small_store, words, told):
    result = call("tokens", "preview", str(small_store), *words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def names_of(call, store, recipe, **options):
    words = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    result = call("tokens", "preview", str(store), "--recipe", recipe, *words, "-n", "1", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)[0]


def test_names_are_those_of_the_recipes_own_numbers(call, small_store):
    store = cm.open(small_store)
    tokens, symbols = store.genes["token"].to_pylist(), store.genes["symbol"].to_pylist()
    counts, symbol_of = store.read([0]).toarray()[0], dict(zip(tokens, symbols, strict=True))
    there = [tokens[i] for i in counts.nonzero()[0]]
    panel = there[3:0:-1]
    cell = names_of(call, small_store, "hvg_panel", panel=panel, transform="raw", fill_to=0)
    assert cell["names"] == [symbol_of[token] for token in panel]
    assert cell["values"] == [counts[tokens.index(token)] for token in panel]
    cell = names_of(call, small_store, "count_diffusion", panel=panel)
    assert cell["names"] == [symbol_of[token] for token in panel]
    table = [-1] * (max(tokens) + 1)
    for place, token in enumerate(panel):
        table[token] = len(panel) - 1 - place
    cell = names_of(call, small_store, "scfoundation", n_genes=3, token_of=table)
    assert cell["names"] == [*(symbol_of[token] for token in panel[::-1]), "T", "S"]
    cell = names_of(call, small_store, "aido_cell", n_genes=3, token_of=table)
    assert cell["names"] == [*(symbol_of[token] for token in panel[::-1]), "depth", "depth"]
    cell = names_of(call, small_store, "nicheformer", means=dict.fromkeys(panel, 1.0))
    assert set(cell["names"]) == {symbol_of[token] for token in panel}
    table = [-1 if one < 0 else 10 + one for one in table]
    cell = names_of(call, small_store, "uce", rows=table, chromosomes=[one % 2 if one > 0 else -1 for one in table],
                    starts=table, sample_size=4)  # fmt: skip
    assert cell["names"][0] == "<cls>" and cell["names"][1].startswith("chromosome ")
    assert {*cell["names"]} <= {
        "<cls>",
        "<end>",
        "chromosome 0",
        "chromosome 1",
        *(symbol_of[token] for token in panel),
    }
    cell = names_of(
        call, small_store, "state_se", embedding=table, max_length=4, n_expressed=1, n_unexpressed=1, n_shared=0
    )
    assert cell["names"][0] == "<cls>" and {*cell["names"][1:]} <= {symbol_of[token] for token in panel}


def tables(store):
    genes = cm.open(store).gene_ids
    return {gene: 0.5 + i % 7 for i, gene in enumerate(genes)}


def write_table(path, table):
    if path.suffix == ".json":
        path.write_text(json.dumps(table))
    elif path.suffix == ".csv":
        path.write_text("gene,median\n" + "".join(f"{gene},{value}\n" for gene, value in table.items()))
    elif path.suffix == ".tsv":
        path.write_text("".join(f"{gene}\t{value}\n" for gene, value in table.items()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"gene": list(table), "median": list(table.values())}), path)
    elif path.suffix == ".pkl":
        protocol = int(path.stem[-1]) if path.stem[-1].isdigit() else None
        path.write_bytes(pickle.dumps({gene: np.float64(value) for gene, value in table.items()}, protocol))
    return path


@pytest.mark.parametrize("ending", [".json", ".csv", ".tsv", ".parquet", ".pkl", "0.pkl", "2.pkl", "5.pkl"])
def test_a_table_comes_from_a_file(call, small_store, tmp_path, ending):
    table = tables(small_store)
    path = write_table(tmp_path / f"medians{ending}", table)
    words = ["tokens", "preview", str(small_store), "--recipe", "geneformer", "--set", f"medians={path}", "--json"]
    (cell, *_) = json.loads(call(*words).stdout)
    store = cm.open(small_store)
    recipe = cm.tokens.Geneformer(medians=table, vocabulary=store.vocabulary)
    assert cell["genes"] == token_rows(store, recipe, [0])[0]["genes"]


def test_options_come_from_a_file_and_from_set(call, small_store, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "max_length: 30\nmask: 0.5\ncontext: [{edges: [10, 100], first: 90000}, "
        "{column: study, tokens: {a: 90010}, missing: 90011}]\nvocabulary: human\n"
    )
    words = ["tokens", "preview", str(small_store), "--recipe", "scgpt", "--options", str(tmp_path / "recipe.yaml")]
    (cell, *_) = json.loads(call(*words, "--set", "max_length=20", "--json").stdout)
    assert cell["length"] == 20
    assert 90000 <= cell["genes"][1] <= 90002
    assert cell["genes"][2] in (90010, 90011)


# a pickle that hands numpy's own scalar an address to take for an object: reading it would end the process
OBJECT_AT_AN_ADDRESS = (
    b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x06scalar\x93\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02O8\x89\x88\x87R"
    b"(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC\x08AAAAAAAA\x86R."
)
NPY_OF_TOO_MANY = b"\x93NUMPY\x01\x00\x76\x00" + (
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + b"\n"
)


class Runs:
    def __reduce__(self):
        return os.system, ("echo run > ran",)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("none.csv", None, "there is no such file"),
        ("table.xlsx", b"", "ends in .json, .csv"),
        ("table.csv", b"gene,median\nENSG1,x\n", "line 2: 'x' is no number"),
        ("table.csv", b"ENSG1,1\nENSG1,2\n", "line 2: gene 'ENSG1' is there twice"),
        ("table.csv", b"ENSG1\n", "line 1 has one column"),
        ("table.csv", b"\xff\xfe\x00", "this is no table"),
        ("table.json", b"{", "this is no table"),
        ("table.json", b'{"ENSG1": "1"}', "each gene id must have a number"),
        ("table.json", b'{"ENSG1": true}', "each gene id must have a number"),
        ("table.json", b"[[1, 2]]", "one number for each token"),
        ("table.parquet", b"PAR1", "this is no table"),
        ("table.npy", b"\x93NUMPY", "this is no table"),
        ("table.pkl", b"cos\nsystem\n", "this is no table"),
        ("table.pkl", pickle.dumps(Runs()), "which is no number"),
        ("table.pkl", b"", "this is no table"),
        ("table.pkl", OBJECT_AT_AN_ADDRESS, "the type 'O8', which is none of numbers"),
        ("table.pkl", pickle.dumps({"ENSG1": np.longdouble(1)}), "which is none of numbers"),
        ("table.pkl", pickle.dumps(collections.OrderedDict)[:-1] + b"K\x05\x85R.", "this is no table"),
        ("table.pkl", b"\x80\x04)}b.", "this is no table"),
        ("table.csv", b"ENSG1,n/a\nENSG2,1\n", "line 1: 'n/a' is no number"),
        ("table.csv", b"gene,median\n", "it holds no number"),
        ("table.json", b'{"ENSG1": 1, "ENSG1": 2}', "'ENSG1' is there twice"),
        ("table.json", b"[[1], [1, 2]]", "this is no table"),
        ("table.json", b"[" * 100_000, "this is no table"),
        ("table.npy", b"PK\x03\x04", "this is no table"),
        ("table.npy", NPY_OF_TOO_MANY, "this is no table"),
    ],
)
def test_a_file_that_is_no_table_is_told(call, small_store, tmp_path, monkeypatch, name, data, told):
    monkeypatch.chdir(tmp_path)
    if data is not None:
        (tmp_path / name).write_bytes(data)
    result = call("tokens", "preview", str(small_store), "--recipe", "geneformer", "--set", f"medians={name}")
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert name in result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", "must hold options by name"),
        ("{", "cannot be read as YAML"),
        ("context: [{column: study}]", "context takes mappings"),
        ("context: [{column: study, tokens: 3}]", "has no tokens"),
        (None, "no such file"),
    ],
)
def test_options_that_are_none_are_told(call, small_store, tmp_path, text, told):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    result = call("tokens", "preview", str(small_store), "--recipe", "scgpt", "--options", str(path))
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def test_recipes_are_listed(call):
    assert set(json.loads(call("tokens", "list", "--json").stdout)) == set(cm.tokens.RECIPES)
