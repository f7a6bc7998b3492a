"""`cellmill genes`: reports of stores and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import cellmill as cm
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
