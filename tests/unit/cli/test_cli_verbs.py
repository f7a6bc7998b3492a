"""The verbs on a small store: what they print, what they write, how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import Result

import cellmill as cm
from cellmill.cli import display, doctor
from cellmill.cli.query import distinct_names

Call = Callable[..., Result]


def told(result: Result) -> str:
    """Everything that was said, in one line: tables break lines where they like."""
    return " ".join((result.stdout + result.stderr).split())


def answer(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---- build --------------------------------------------------------------------------------------------------------


def test_build_says_what_was_made_and_what_next(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    result = call("build", tmp_path / "a.mill", *small_inputs)
    assert result.exit_code == 0, result.output
    assert "bytes per nonzero" in told(result)
    assert "of the inputs'" in told(result)
    assert f"cellmill info {tmp_path / 'a.mill'}" in result.stdout


def test_build_json_agrees_with_the_store(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    found = answer(call("build", tmp_path / "a.mill", small_inputs[0].parent, "--json"))
    store = cm.open(tmp_path / "a.mill")
    assert isinstance(found, dict)
    assert (found["n_cells"], found["nnz"], found["digest"]) == (store.n_cells, store.nnz, store.digest)
    assert found["inputs_bytes"] == sum(source.bytes for source in store.manifest.sources) > 0
    assert found["skipped"] == []


def test_build_renames_columns(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    result = call("build", tmp_path / "a.mill", small_inputs[0], "--rename", "donor_id=person")
    assert result.exit_code == 0, result.output
    assert "person" in cm.open(tmp_path / "a.mill").obs.columns


def not_raw(tmp_path: Path, source: Path) -> Path:
    path = tmp_path / "normalised.h5ad"
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        data = file["X/data"]
        data[...] = np.log1p(data[...])
    return path


def test_build_refuses_what_is_not_raw_and_leaves_nothing(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    wrong = not_raw(tmp_path, small_inputs[0])
    result = call("build", tmp_path / "a.mill", wrong)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "raw counts" in result.stderr
    assert sorted(tmp_path.iterdir()) == [wrong]


def test_skip_bad_builds_the_rest_and_lists_what_was_skipped(
    call: Call, small_inputs: list[Path], tmp_path: Path
) -> None:
    wrong = not_raw(tmp_path, small_inputs[0])
    result = call("build", tmp_path / "a.mill", wrong, small_inputs[1], "--skip-bad")
    assert result.exit_code == 0, result.output
    assert "1 skipped" in result.stdout
    assert result.output.count("raw counts") - result.output.count("holds raw counts") == 1  # the reason, once
    assert "--skip-bad" not in result.output
    assert "normalised.h5ad" in result.stdout.replace("\n", "")
    assert cm.open(tmp_path / "a.mill").n_cells == 80
    again = answer(call("build", tmp_path / "b.mill", wrong, small_inputs[1], "--skip-bad", "--json"))
    assert isinstance(again, dict)
    assert [Path(one["path"]).name for one in again["skipped"]] == ["normalised.h5ad"]


def test_dry_run_writes_nothing(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    result = call("build", tmp_path / "a.mill", *small_inputs, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "240 cells" in result.stdout
    planned = answer(call("build", tmp_path / "a.mill", *small_inputs, "--dry-run", "--json"))
    assert isinstance(planned, dict)
    assert planned["n_cells"] == 240
    assert list(tmp_path.iterdir()) == []


def test_build_does_not_replace_a_store_unasked(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "a.mill"
    assert call("build", target, small_inputs[0]).exit_code == 0
    refused = call("build", target, small_inputs[1])
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert call("build", target, small_inputs[1], "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("build", "x.mill"),
        ("build", "x.mill", "no-such-file.h5ad"),
        ("build", "x.mill", "no-such-file.h5ad", "--rename", "donor"),
        ("info", "no-such.mill"),
        ("head",),
        ("query", "no-such.mill", "SELECT 1"),
        ("plan", "no-such.yaml"),
        ("train", "no-such.yaml"),
        ("evaluate", "no-such.yaml"),
        ("run", "no-such.yaml"),
        ("genes", "vocabulary", "no-such"),
        ("genes", "report", "no-such"),
        ("hvg", "no-such.mill", "--flavor", "cell_ranger"),
        ("export", "h5ad", "no-such.mill", "x.h5ad"),
        ("no-such-verb",),
    ],
)
def test_wrong_use_exits_with_2_and_a_message(
    call: Call, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "rror" in result.stderr  # "error: ..." of ours, a box with "Error" of typer's
    assert list(tmp_path.iterdir()) == []


# ---- info, head, query --------------------------------------------------------------------------------------------


def test_info_names_sources_and_columns(call: Call, small_store: Path) -> None:
    text = told(call("info", small_store))
    for word in ("240", "cell_type", "blood-a", "10x-h5", "bytes per nonzero"):
        assert word in text


def test_info_json(call: Call, small_store: Path) -> None:
    found = answer(call("info", small_store, "--json"))
    store = cm.open(small_store)
    assert isinstance(found, dict)
    assert found["n_cells"] == 240
    assert found["n_genes"] == store.n_genes
    assert found["digest"] == store.digest
    assert list(found["obs"]) == store.obs.columns
    assert sum(source["n_cells"] for source in found["sources"]) == 240
    assert found["bytes_per_nonzero"] == pytest.approx(store.n_bytes / store.nnz)


def test_head_shows_the_highest_counts_of_the_first_cells(call: Call, small_store: Path) -> None:
    cells = answer(call("head", small_store, "-n", 3, "--json"))
    assert isinstance(cells, list)
    store = cm.open(small_store)
    dense = store.read_dense([0, 1, 2])
    assert [cell["row"] for cell in cells] == [0, 1, 2]
    for i, cell in enumerate(cells):
        values = list(cell["top_genes"].values())
        assert values == sorted(dense[i], reverse=True)[: len(values)]
        assert cell["total_counts"] == dense[i].sum()


def test_head_takes_columns_and_a_condition(call: Call, small_store: Path) -> None:
    where = "cell_type = 'monocyte'"
    result = call("head", small_store, "-n", 2, "--columns", "cell_type,dataset", "--where", where)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("monocyte") == 2
    cells = answer(call("head", small_store, "-n", 2, "--where", where, "--json"))
    assert isinstance(cells, list)
    assert [cell["row"] for cell in cells] == cm.open(small_store).select(where)[:2].tolist()


def test_head_names_the_columns_that_it_leaves_out(call: Call, small_store: Path) -> None:
    result = call("head", small_store)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("columns left out: ")]
    header = next(line for line in result.stdout.splitlines() if "total_counts" in line)
    for name in cm.open(small_store).obs.columns:
        assert name in header or name in line
    assert "--columns" in line and "...." not in line
    assert "--columns uid" not in line and "--columns fingerprint" not in line  # an example that one would want
    assert "left out" not in call("head", small_store, "--columns", "cell_type").stdout


def test_head_says_that_no_cell_meets_a_condition(call: Call, small_store: Path) -> None:
    result = call("head", small_store, "--where", "tissue = 'lung'")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{small_store}: no cell meets \"tissue = 'lung'\"")
    assert answer(call("head", small_store, "--where", "tissue = 'lung'", "--json")) == []


@pytest.mark.parametrize("words", [("head",), ("export", "h5ad")])
def test_an_empty_condition_is_refused_and_not_taken_for_all_cells(
    call: Call, small_store: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = [tmp_path / "all.h5ad"] if words[0] == "export" else []
    result = call(*words, small_store, *out, "--where", "")
    assert result.exit_code == 2
    assert "the condition is empty" in result.stderr


def test_head_of_an_unknown_column_names_the_nearest(call: Call, small_store: Path) -> None:
    result = call("head", small_store, "--columns", "cell_typ")
    assert result.exit_code == 2
    assert "cell_type" in result.stderr


def test_query_counts(call: Call, small_store: Path) -> None:
    sql = "SELECT dataset, count(*) AS cells FROM obs GROUP BY 1 ORDER BY 1"
    rows = answer(call("query", small_store, sql, "--json"))
    assert rows == [{"dataset": name, "cells": 80} for name in ("blood-a", "blood-b", "gut-c")]
    assert "blood-b" in call("query", small_store, sql).stdout


def test_query_keeps_columns_that_are_called_alike(call: Call, small_store: Path, tmp_path: Path) -> None:
    sql = "SELECT dataset AS a, cell_type AS a, sum(total_counts) AS total FROM obs GROUP BY ALL ORDER BY ALL LIMIT 1"
    (row,) = cm.open(small_store).query(sql.replace("cell_type AS a", "cell_type AS b")).to_pylist()
    expected = {"a": row["a"], "a_2": row["b"], "total": int(row["total"])}
    assert answer(call("query", small_store, sql, "--json")) == [expected]
    text = told(call("query", small_store, sql))
    for value in (row["a"], row["b"], f"{int(row['total']):,}"):
        assert value in text
    assert call("query", small_store, sql, "-o", tmp_path / "x.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "x.parquet").column_names == list(expected)


@pytest.mark.parametrize(
    "names", [["a"], ["a", "a"], ["a", "a_2", "a"], ["a", "a", "a_2"], ["a"] * 4 + ["a_3"]], ids=str
)
def test_names_become_distinct(names: list[str]) -> None:
    found = distinct_names(names)
    assert len(set(found)) == len(found) == len(names)
    assert all(new.startswith(old) for old, new in zip(names, found, strict=True))
    assert found[0] == names[0]


@pytest.mark.parametrize(
    ("words", "told_so"),
    [
        (("query", "SELECT 1", "-o", "no-folder/x.csv"), "no-folder"),
        (("query", "SELECT 1", "-o", "folder.csv"), "folder.csv"),
        (("hvg", "-o", "no-folder/x.txt"), "no-folder"),
        (("hvg", "-o", "x.json"), ".txt, .csv or .parquet"),
        (("hvg", "-o", "x.tsv"), ".txt, .csv or .parquet"),
        (("export h5ad", "no-folder/x.h5ad"), "no-folder"),
        (("export h5ad", "x.loom"), "use .h5ad"),
        (("genes vocabulary", "-o", "no-folder/x.json"), "no-folder"),
        (("head", "--columns", ""), "commas"),
    ],
    ids=str,
)
def test_a_wrong_output_is_told_before_anything_is_computed(
    call: Call, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told_so: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("this was not to be reached")

    monkeypatch.setattr(cm.Store, "query", fail)
    monkeypatch.setattr(cm, "hvg", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    result = call(*words[0].split(), small_store, *words[1:])
    assert result.exit_code == 2, result.output
    assert told_so in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_column_of_head_is_empty(call: Call, small_store: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(display, "console", lambda: Console(width=width, highlight=False))
    text = told(call("head", small_store, "-n", 2))
    for word in ("row", "n_genes_detected", "highest", str(cm.open(small_store).column("cell", [0])[0])):
        assert word in text


def test_query_says_when_it_shows_only_a_part(call: Call, small_store: Path) -> None:
    assert "190 rows more" in call("query", small_store, "SELECT row FROM obs").stdout


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_query_writes_a_file(call: Call, small_store: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"cells.{ending}"
    result = call("query", small_store, "SELECT row, dataset FROM obs ORDER BY row", "-o", out)
    assert result.exit_code == 0, result.output
    assert "240 rows" in result.stdout
    n = pq.read_table(out).num_rows if ending == "parquet" else len(out.read_text().splitlines()) - 1
    assert n == 240


def test_query_refuses_an_ending_it_does_not_know(call: Call, small_store: Path, tmp_path: Path) -> None:
    result = call("query", small_store, "SELECT 1", "-o", tmp_path / "cells.xlsx")
    assert result.exit_code == 2
    assert ".csv or .parquet" in result.stderr


def test_query_that_duckdb_refuses(call: Call, small_store: Path) -> None:
    result = call("query", small_store, "SELECT cell_typ FROM obs")
    assert result.exit_code == 2
    assert "cell_type" in result.stderr


# ---- verify, genes, hvg, plan, export ------------------------------------------------------------------------------


def test_verify_of_a_sound_store(call: Call, small_store: Path) -> None:
    assert "sound" in told(call("verify", small_store))
    report = answer(call("verify", small_store, "--json"))
    assert isinstance(report, dict)
    assert report["ok"]
    assert report["n_cells_decoded"] == 240


def test_verify_finds_a_flipped_bit_and_exits_with_1(call: Call, small_store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mill"
    shutil.copytree(small_store, copy)
    shard = next((copy / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    result = call("verify", copy)
    assert result.exit_code == 1
    assert shard.name in result.stdout.replace("\n", "")
    machine = call("verify", copy, "--json")
    assert machine.exit_code == 1
    assert not json.loads(machine.stdout)["ok"]


def test_genes_map(call: Call) -> None:
    found = answer(call("genes", "map", "ENSG00000141510.17", "SEPT2", "NO-SUCH-GENE", "--species", "human", "--json"))
    assert isinstance(found, dict)
    assert [(one["gene_id"], one["outcome"]) for one in found["genes"]] == [
        ("ENSG00000141510", "exact_id"),
        ("ENSG00000168385", "tenx_symbol"),
        (None, "unmatched"),
    ]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("cd8a", (), "cd8a: upper and lower case count; human has CD8A"),
        ("Trp53", ("--species", "human"), "Trp53: mouse has Trp53: add --species mouse"),
        ("cd8a", ("--species", "mouse"), "cd8a: upper and lower case count; mouse has Cd8a"),
    ],
)
def test_genes_map_hints_at_case_and_species(call: Call, name: str, words: tuple[str, ...], said: str) -> None:
    assert said in told(call("genes", "map", name, *words))
    assert "upper and lower" not in told(call("genes", "map", "TP53"))


def test_the_words_for_how_a_gene_was_found_are_explained(call: Call, small_store: Path) -> None:
    text = told(call("genes", "report", small_store))
    assert text.count("exact_id: an Ensembl id of the table") == 1  # for all sources
    assert "previous_symbol:" not in text
    assert "tenx_symbol: the name that a 10x Genomics reference" in told(call("genes", "map", "SEPT2", "TP53"))


def test_vocabularies_that_share_nothing_say_why(call: Call, tmp_path: Path) -> None:
    (tmp_path / "symbols.json").write_text(json.dumps({"TP53": 0, "CD3E": 1, "MS4A1": 2, "no gene": 3}))
    text = told(call("genes", "vocabulary", "human", "--compare", tmp_path / "symbols.json"))
    assert "3 genes are the same when symbols are resolved" in text
    assert "two species" in told(call("genes", "vocabulary", "human", "--compare", "mouse"))
    compared = answer(call("genes", "vocabulary", "human", "--compare", "human", "--json"))
    assert isinstance(compared, dict)
    assert "hint" not in compared["compared_with"]


def test_genes_vocabulary_of_a_store_goes_out_and_comes_back(call: Call, small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "vocabulary.json"
    result = call("genes", "vocabulary", small_store, "-o", out)
    assert result.exit_code == 0, result.output
    assert cm.Vocabulary.from_json(out).hash == cm.open(small_store).vocabulary_hash
    compared = answer(call("genes", "vocabulary", out, "--compare", "human", "--json"))
    assert isinstance(compared, dict)
    assert compared["compared_with"]["only_here"] == 0


def test_genes_report_of_a_store_and_of_an_input(call: Call, small_store: Path, small_inputs: list[Path]) -> None:
    reports = answer(call("genes", "report", small_store, "--json"))
    assert isinstance(reports, dict)
    assert {name: one["matched"] for name, one in reports.items()} == {
        "blood-a": 1200,
        "blood-b": 1200,
        "gut-c": 1200,
    }
    assert "1,200 of 1,200 genes matched" in told(call("genes", "report", small_store))
    one = answer(call("genes", "report", small_inputs[0], "--json"))
    assert isinstance(one, dict)
    assert next(iter(one.values()))["outcomes"] == {"exact_id": 1200}


def test_hvg_gives_what_the_api_gives(call: Call, small_store: Path, tmp_path: Path) -> None:
    expected = list(cm.hvg(cm.open(small_store), 30).gene_ids)
    found = answer(call("hvg", small_store, "-n", 30, "--json"))
    assert isinstance(found, dict)
    assert found["gene_ids"] == expected
    assert expected[0] in call("hvg", small_store, "-n", 30).stdout
    out = tmp_path / "genes.txt"
    assert call("hvg", small_store, "-n", 30, "-o", out).exit_code == 0
    assert out.read_text().split() == expected


def test_hvg_of_a_part_differs(call: Call, small_store: Path) -> None:
    part = answer(call("hvg", small_store, "-n", 30, "--where", "tissue = 'blood'", "--json"))
    assert isinstance(part, dict)
    assert part["gene_ids"] != list(cm.hvg(cm.open(small_store), 30).gene_ids)


def test_the_mixture_among_the_examples_can_be_planned(call: Call, small_store: Path, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[3] / "examples" / "mix.yaml"
    (tmp_path / "examples").mkdir()
    shutil.copy(example, tmp_path / "examples" / "mix.yaml")
    (tmp_path / "cellmill-demo").mkdir()
    shutil.copytree(small_store, tmp_path / "cellmill-demo" / "atlas.mill")
    planned = answer(call("plan", tmp_path / "examples" / "mix.yaml", "--json"))
    assert isinstance(planned, dict)
    assert planned["name"] == "blood-first"


MIX = """
name: blood-first
seed: 0
split: {{by: donor_id, train: 0.8, validation: 0.1, test: 0.1}}
components:
  - {{name: blood, store: {store}, where: "tissue = 'blood'", proportion: 0.75}}
  - {{name: gut, store: {store}, where: "tissue <> 'blood'", proportion: 0.25}}
"""


def test_plan_prints_the_plan_of_the_api(call: Call, small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(MIX.format(store=small_store))
    planned = cm.Mixture.from_yaml(path).plan()
    result = call("plan", path)
    assert result.exit_code == 0, result.output
    assert str(planned).split() == result.stdout.split()
    assert answer(call("plan", path, "--json")) == json.loads(planned.to_json())


def test_plan_shows_the_units_and_rungs_of_a_mixture(call: Call, small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    units = "units: {kind: chunks, cells: 4}\nladder: [10%, 1]\n"
    path.write_text(f"{units}components: [{{name: all, store: {small_store}}}]\n")
    said = answer(call("plan", path, "--json"))
    loader = cm.Loader(cm.Mixture.from_yaml(path))
    assert (said["hash"], said["n_draws"]) == (loader.plan.hash, loader.plan.n_draws)
    assert said["units"]["counts"]["units"] == said["n_draws"] == said["ladder"][1]["n_draws"]
    assert said["ladder"][0]["n_cells"] == round(0.1 * said["n_cells"])
    assert call("plan", path).stdout.count("units an epoch") == 3


def test_plan_refuses_an_unknown_key(call: Call, small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(MIX.format(store=small_store).replace("seed:", "sede:"))
    result = call("plan", path)
    assert result.exit_code == 2
    assert "Did you mean 'seed'?" in result.stderr


def test_export_h5ad(call: Call, small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "blood.h5ad"
    found = answer(call("export", "h5ad", small_store, out, "--where", "tissue = 'blood'", "--json"))
    assert isinstance(found, dict)
    assert found["n_cells"] == 160
    again = cm.build(tmp_path / "again.mill", [out], vocabulary=cm.open(small_store).vocabulary)
    assert again.n_cells == 160
    refused = call("export", "h5ad", small_store, out)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    replaced = call("export", "h5ad", small_store, out, "--overwrite")
    assert "240 cells" in replaced.stdout


def test_export_of_no_cells_is_an_error_that_names_the_condition(call: Call, small_store: Path, tmp_path: Path) -> None:
    result = call("export", "h5ad", small_store, tmp_path / "none.h5ad", "--where", "tissue = 'lung'")
    assert result.exit_code == 2
    assert "no cell meets \"tissue = 'lung'\"" in result.stderr
    assert list(tmp_path.iterdir()) == []


# ---- doctor -------------------------------------------------------------------------------------------------------


def test_doctor_names_kernel_cores_and_extras(call: Call) -> None:
    text = told(call("doctor"))
    for word in ("kernel", "cores", "memory", "free disk", "torch", "anndata"):
        assert word in text


def test_doctor_json(call: Call) -> None:
    found = answer(call("doctor", "--json"))
    assert isinstance(found, dict)
    assert found["kernel"] == cm.kernel.IMPLEMENTATION
    assert found["n_cores"] >= 1
    assert found["free_disk_bytes"] > 0
    assert set(found["extras"]) == {
        "accelerate", "anndata", "cloud", "dask", "filters", "hvg", "report", "scvi", "sketch", "torch", "zarr",
    }  # fmt: skip
    assert found["cache_limit_bytes"] > 0
    assert found["cache_bytes"] >= 0


def test_doctor_says_why_the_reference_runs_and_how_to_mend_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cm.kernel, "IMPLEMENTATION", "reference")
    monkeypatch.setattr(cm.kernel, "native_error", lambda: "no compiler was there")
    monkeypatch.delenv("CELLMILL_KERNEL", raising=False)
    text = told(call("doctor"))
    assert "no compiler was there" in text
    assert "install cellmill again" in text


def test_doctor_gives_the_pip_line_of_a_missing_extra(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def without_scvi(name: str) -> str:
        if name == "scvi-tools":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without_scvi)
    expected = "scvi: scvi-tools not installed; in the source's folder: pip install -c constraints.txt '.[scvi]'"
    assert expected in told(call("doctor"))


def test_doctor_says_when_a_package_is_there_but_cannot_be_imported(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    (tmp_path / "jinja2.py").write_text("raise ImportError('libsomething.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "EXTRAS", {"report": ("jinja2",)})
    doctor._import_fault.cache_clear()
    try:
        found = answer(call("doctor", "--imports", "--json"))
        assert isinstance(found, dict)
        assert not found["extras"]["report"]["complete"]
        assert found["extras"]["report"]["broken"] == {"jinja2": "ImportError: libsomething.so is missing"}
        assert "jinja2 cannot be imported (ImportError: libsomething.so is missing)" in told(
            call("doctor", "--imports")
        )
    finally:
        doctor._import_fault.cache_clear()


def test_version(call: Call) -> None:
    assert call("--version").stdout.strip() == f"cellmill {cm.__version__}"


def test_quiet_shows_no_progress(call: Call, small_store: Path) -> None:
    assert call("--quiet", "verify", small_store).stderr == ""
    assert call("verify", small_store).stderr != ""
