"""`cellmill genes`: reports of stores and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import cellmill as cm
from cellmill.cli import app
from cellmill.genes import GeneTable

Call = Callable[..., Result]
HUMAN = GeneTable.load("human")
GOLDEN = Path(__file__).parents[2] / "golden" / "store_v2"


def told(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def answer(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


# ---- report -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_panels(tmp_path: Path, tiny_h5ad: Callable[..., object]) -> cm.Store:
    """A store of two sources that measured other genes; one names CD3E twice, by its id and by its symbol."""
    coding = [gene_id for gene_id in HUMAN.ids if gene_id.startswith("ENSG000001")][:60]
    first = tiny_h5ad("first", n_cells=20, genes=[*coding[:38], "ENSG00000198851", "CD3E"], n_genes=40)
    second = tiny_h5ad("second", n_cells=20, genes=coding[20:], n_genes=40, seed=1)
    return cm.build(tmp_path / "two.mill", [first.path, second.path])  # type: ignore[attr-defined]


def test_a_report_says_what_each_source_measured_and_which_columns_were_summed(
    call: Call, two_panels: cm.Store
) -> None:
    found = answer(call("genes", "report", two_panels.path, "--json"))
    assert {name: one["coverage"] for name, one in found.items()} == {  # type: ignore[index]
        "first": {"measured": 39, "of": 61},
        "second": {"measured": 40, "of": 61},
    }
    said = told(call("genes", "report", two_panels.path))
    assert "measured 39 of the store's 61 genes (63.9%); 22 were not measured, which is not zero" in said
    assert "ENSG00000198851 (ENSG00000198851 + CD3E)" in said


def test_a_report_of_an_older_store_says_that_coverage_is_not_recorded(call: Call) -> None:
    found = answer(call("genes", "report", GOLDEN / "panel.store", "--json"))
    assert {one["coverage"]["measured"] for one in found.values()} == {None}  # type: ignore[index]
    assert "is not recorded" in told(call("genes", "report", GOLDEN / "panel.store"))


# ---- vocabulary ---------------------------------------------------------------------------------------------------


def test_a_vocabulary_is_built_from_files_and_written_as_mosaicfm_reads_it(
    call: Call, small_inputs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "vocab.json"
    words = ("genes", "vocabulary", *small_inputs, "--layout", "mosaicfm", "--form", "mosaicfm", "-o", out)
    found = answer(call(*words, "--json"))
    written = json.loads(out.read_text())
    assert len(written) == found["n_tokens"] and found["n_tokens"] % 64 == 0  # type: ignore[operator]
    assert (written["<pad>"], written["<cls>"], written["<eoc>"]) == (0, 1, 2)
    assert cm.Vocabulary.load(out).hash == found["hash"]
    assert [part["n_genes"] for part in found["parts"]] == [1200] * len(small_inputs)  # type: ignore[index, union-attr]
    before = out.read_bytes()
    refused = call(*words)
    assert refused.exit_code == 2 and "--overwrite" in told(refused)
    assert out.read_bytes() == before
    out.write_text("{}")
    assert call(*words, "--overwrite").exit_code == 0
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_base_is_told_what_it_lacks(call: Call, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(json.dumps({"<pad>": 0, "ENSG00000141510": 1, "ENSG00000198851": 2}))
    (tmp_path / "mine.txt").write_text("TP53\nLYZ\n")
    words = ("genes", "vocabulary", tmp_path / "mine.txt", "--base", tmp_path / "base.json")
    found = answer(call(*words, "--json"))
    assert (found["n_genes"], found["parts"][0]["in_base"], found["parts"][0]["examples"]) == (2, 1, ["LYZ"])  # type: ignore[index]
    said = told(call(*words))
    assert "in the base" in said and "LYZ" in said
    assert answer(call(*words, "--keep", "shared", "--json"))["first_ids"] == ["ENSG00000141510"]
    assert answer(call(*words, "--keep", "all", "--json"))["n_tokens"] == 4


def test_ids_come_from_standard_input_and_go_out_by_symbol(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "v.json"
    done = CliRunner().invoke(
        app,
        ["genes", "vocabulary", "-", "--layout", "scgpt", "--form", "scgpt", "-o", str(out)],
        input="ENSG00000141510.5\nENSG00000198851\n",
    )
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text()) == {"TP53": 0, "CD3E": 1, "<pad>": 2, "<cls>": 3, "<eoc>": 4}


def test_overlap_is_reported_with_tokens_and_special_tokens(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"<pad>": 0, "TP53": 1, "CD3E": 2, "LYZ": 3}))
    (tmp_path / "b.json").write_text(json.dumps({"<pad>": 9, "TP53": 1, "LYZ": 2}))
    words = ("genes", "vocabulary", tmp_path / "a.json", "--compare", tmp_path / "b.json")
    compared = answer(call(*words, "--json"))["compared_with"]
    assert {key: compared[key] for key in ("shared", "same_token", "only_here", "only_there", "same_genes")} == {  # type: ignore[index]
        "shared": 2, "same_token": 1, "only_here": 1, "only_there": 0, "same_genes": 2,
    }  # fmt: skip
    said = told(call(*words))
    assert "2 (66.6% of these, 100.0% of those)" in said
    assert "<pad> (0 here, 9 there)" in said
    assert "1, for example CD3E" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("human", "--form", "scgpt"), "add -o FILE.json"),
        (("human", "--keep", "all"), "add --base NAME"),
        (("human", "--layout", "geneformer"), "--layout"),
        (("humam",), "Did you mean"),
    ],
)
def test_options_that_cannot_be_meant_are_told(call: Call, words: tuple[str, ...], said: str) -> None:
    result = call("genes", "vocabulary", *words)
    assert result.exit_code == 2
    assert said in told(result)


def test_what_an_ambiguous_name_may_mean_is_named(call: Call) -> None:
    rows = {row["query"]: row for row in answer(call("genes", "map", "CD45", "PTPRC", "--json"))["genes"]}  # type: ignore[attr-defined]
    assert rows["CD45"]["outcome"] == "ambiguous" and rows["CD45"]["gene_id"] is None
    assert rows["CD45"]["candidates"] == [{"gene_id": "ENSG00000081237", "symbol": "PTPRC"}]
    assert "CD45: may mean PTPRC (ENSG00000081237), which another" in told(call("genes", "map", "CD45", "PTPRC"))
    several = answer(call("genes", "map", "CD16", "FCGR3A", "FCGR3B", "--json"))["genes"][0]  # type: ignore[index]
    assert {one["symbol"] for one in several["candidates"]} == {"FCGR3A", "FCGR3B"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("1-Mar", "MARCH1 (today MARCHF1) or MARC1 (today MTARC1)"),
        ("02-Sep", "SEPT2 (today SEPTIN2)"),
        ("Dec-01", "DEC1 (today BHLHE40)"),
    ],
)
def test_a_date_is_told_and_not_resolved(call: Call, name: str, meant: str) -> None:
    (row,) = answer(call("genes", "map", name, "--json"))["genes"]  # type: ignore[misc]
    assert (row["gene_id"], row["outcome"]) == (None, "unmatched")
    assert "looks like a date" in row["hint"] and meant in row["hint"]


def test_no_date_is_seen_in_other_names(call: Call) -> None:
    rows = answer(call("genes", "map", "HLA-DRA", "1-Jan", "99-Mar", "RP11-2", "--json"))["genes"]
    assert [row for row in rows if "date" in row.get("hint", "")] == []  # type: ignore[attr-defined]
