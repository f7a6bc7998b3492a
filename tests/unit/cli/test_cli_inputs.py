"""Inputs at the command line: what `build -v` explains, and how wrong ones end."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import cellmill as cm

Call = Callable[..., Result]
GENES = ["TP53", "CD3E", "MS4A1", "GAPDH", "ACTB", "CD4"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "study.counts.csv"
    path.write_text("gene,c1,c2\n" + "".join(f"{gene},{i},1\n" for i, gene in enumerate(GENES)))
    (tmp_path / "study.metadata.csv").write_text("cell,cell_type\nc2,B\nc1,T\n")
    return path


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def test_verbose_explains_each_guess_and_leaves_json_alone(call: Call, table: Path, tmp_path: Path) -> None:
    result = call("build", tmp_path / "a.mill", table, "-v", "--json")
    assert result.exit_code == 0, result.output
    assert f"{table}: read as csv, since it is text of 3 fields a line" in said(result)
    assert "genes in rows (100% of their names are known genes" in said(result)
    assert json.loads(result.stdout)["n_cells"] == 2
    obs = cm.open(tmp_path / "a.mill").obs.to_arrow(columns=["cell", "cell_type", "total_counts", "dataset"])
    assert obs.to_pydict() == {
        "cell": ["c1", "c2"], "cell_type": ["T", "B"], "total_counts": [15, 6], "dataset": ["study", "study"],
    }  # fmt: skip
    quiet = call("build", tmp_path / "b.mill", table)
    assert quiet.exit_code == 0 and "read as" not in said(quiet)
    forced = call("build", tmp_path / "c.mill", table, "-v", "--format", "csv-genes-x-cells", "--dry-run")
    assert forced.exit_code == 0 and "read as csv-genes-x-cells, since --format says so" in said(forced)
    assert not (tmp_path / "c.mill").exists()


def test_what_of_a_folder_is_passed_over_is_told_with_its_reason(call: Call, table: Path, tmp_path: Path) -> None:
    reasons = {
        "a.rds": "an R data file; save its counts as h5ad",
        "lost.metadata.csv": "called as a table of labels, and beside no table of counts of its name",
        "readme.pdf": "of a kind that holds no counts",
    }
    for name in reasons:
        (table.parent / name).write_text("x")
    told = call("build", tmp_path / "a.mill", table.parent, "--dry-run", "-v")
    for name, why in reasons.items():
        assert f"{table.parent / name}: passed over, {why}" in said(told)
        assert f"passed over {table.parent / name}: {why}" in " ".join(told.stdout.split())
    assert "study.metadata.csv" not in told.stdout  # it belongs to the counts
    plan = json.loads(call("build", tmp_path / "a.mill", table.parent, "--dry-run", "--json").stdout)
    assert {Path(one["path"]).name: one["reason"] for one in plan["passed_over"]} == reasons


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("CD3E,1,1", "CD3E,1", "line 3: found 2 fields"),
        ("CD3E,1,1", "CD3E,1,x", "line 3, field 3"),
        ("CD3E,1,1", "CD3E,1,-1", "gene 'CD3E'"),
        ("CD3E,1,1", "CD3E,NA,1", "not finite"),
        ("CD3E,1,1", "CD3E,0.5,1", "not whole"),
        ("gene,c1,c2", "gene,c1,c1", "stands in field 2 and field 3"),
    ],
)
def test_wrong_tables_end_with_2_the_place_and_no_store(
    old: str, new: str, place: str, call: Call, table: Path, tmp_path: Path
) -> None:
    table.write_text(table.read_text().replace(old, new))
    result = call("build", tmp_path / "a.mill", table)
    assert result.exit_code == 2, result.output
    assert table.name in said(result) and place in said(result)
    assert not (tmp_path / "a.mill").exists()


def test_a_bad_archive_is_left_out_on_request(call: Call, table: Path, tmp_path: Path) -> None:
    archive = tmp_path / "GSE1_RAW.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("../counts.csv")
        tar.addfile(info, io.BytesIO(b""))
    stopped = call("build", tmp_path / "a.mill", table, archive)
    assert stopped.exit_code == 2 and "would lie outside the archive" in said(stopped)
    result = call("build", tmp_path / "a.mill", table, archive, "--skip-bad", "--json")
    assert result.exit_code == 0, result.output
    assert [one["path"] for one in json.loads(result.stdout)["skipped"]] == [str(archive)]


def test_the_line_of_an_input_says_what_was_left_out_as_no_gene(call: Call, table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text() + "__no_feature,90,80\nTotal,105,86\n")
    (source,) = json.loads(call("build", tmp_path / "s.mill", table, "--json").stdout)["sources_built"]
    genes = "6 of 6 genes (100.0%) with 100.0% of their counts"
    assert source["line"] == f"study: 2 cells, {genes}, 2 features left out as no genes"
    assert source["features_left_out"] == {"tallies of reads without a gene": 1, "sums over genes": 1}
    assert cm.open(tmp_path / "s.mill").obs.to_arrow(columns=["total_counts"]).to_pydict() == {"total_counts": [15, 6]}


@pytest.mark.parametrize("kind", ["folder", "archive", "reopened"])
def test_what_may_be_wrong_with_an_input_is_seen(
    call: Call, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, n = tmp_path / "square", len(GENES)
    folder.mkdir()
    (folder / "matrix.mtx").write_text(f"%%MatrixMarket matrix coordinate integer general\n{n} {n} 1\n1 2 3\n")
    (folder / "genes.tsv").write_text("".join(f"{gene}\n" for gene in GENES))
    (folder / "barcodes.tsv").write_text("".join(f"c{i}\n" for i in range(n)))
    path = folder
    if kind == "archive":
        path = tmp_path / "square.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(folder, "square")
    if kind == "reopened":
        monkeypatch.setattr("cellmill.ingest.candidates._OPEN_INPUTS", 0)
    result = call("build", tmp_path / "s.mill", path)
    assert result.exit_code == 0, result.output
    assert "warning: matrix.mtx is square (6 genes and 6 cells)" in " ".join(result.output.split())
    (source,) = json.loads(call("build", tmp_path / "t.mill", path, "--json").stdout)["sources_built"]
    assert len(source["warnings"]) == 1 and "1 warning" in source["line"]
