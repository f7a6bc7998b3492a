"""`cellmill card` and `cellmill hvg` write what they say, and say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import cellmill as cm

Call = Callable[..., Result]


def test_card_writes_page_and_numbers(call: Call, small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.html"
    result = call("card", small_store, "-o", out, "--name", "An atlas")
    assert result.exit_code == 0, result.output
    assert "An atlas" in out.read_text(encoding="utf-8")
    numbers = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert numbers["n_cells"] == cm.open(small_store).n_cells


def test_card_as_json_writes_no_file(
    call: Call, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("card", small_store, "--json")
    assert json.loads(result.stdout)["digest"] == cm.open(small_store).digest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("out", "said"), [("card.pdf", ".html"), ("none/card.html", "no such folder")])
def test_card_refuses_a_path_before_it_reads(
    call: Call, small_store: Path, tmp_path: Path, out: str, said: str
) -> None:
    result = call("card", small_store, "-o", tmp_path / out)
    assert result.exit_code == 2
    assert said in result.output


def test_hvg_of_a_folder_writes_info_and_figure(call: Call, small_store: Path, tmp_path: Path) -> None:
    result = call("hvg", small_store, "-n", 30, "--flavor", "dispersion", "-o", tmp_path / "hvg")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "hvg" / "hvg_analysis.png").read_bytes().startswith(b"\x89PNG")
    info = json.loads((tmp_path / "hvg" / "hvg_info.json").read_text(encoding="utf-8"))
    store = cm.open(small_store)
    chosen = cm.hvg(store, 30, flavor="dispersion")
    assert [store.gene_ids[i] for i in info["hvg_indices"]] == list(chosen.gene_ids) == info["hvg_gene_ids"]
    assert info["gene_to_hvg_idx"] == {str(gene): place for place, gene in enumerate(info["hvg_indices"])}
    counts = store.read(np.arange(store.n_cells)).toarray().astype(float)
    dispersion = counts.var(axis=0, ddof=1)[info["hvg_indices"]] / counts.mean(axis=0)[info["hvg_indices"]]
    facts = info["statistics"]
    assert facts["top_10_dispersions"] == pytest.approx(dispersion[:10].tolist())
    assert facts["median_dispersion"] == pytest.approx(float(np.median(dispersion)))
    assert facts["total_cells_analyzed"] == store.n_cells
    assert facts["expressed_genes"] == int(((counts > 0).sum(axis=0) >= 1).sum())
    assert facts["top_10_pct_cells"] == pytest.approx((100 * (counts > 0).mean(axis=0))[info["hvg_indices"][:10]])
    assert info["store"]["digest"] == store.digest


def test_hvg_across_batches_of_some_cells(call: Call, small_store: Path) -> None:
    words = ("hvg", small_store, "-n", 20, "--flavor", "pearson", "--batch", "tissue", "--where", "total_counts > 0")
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    wanted = cm.hvg(cm.open(small_store), 20, flavor="pearson", batch="tissue", where="total_counts > 0")
    assert tuple(json.loads(result.stdout)["gene_ids"]) == wanted.gene_ids
    shown = call(*words)
    assert "median_rank" in shown.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "tisue"), "tissue"),
        (("--batch", "cell"), "single cell"),
        (("--where", "total_counts < 0"), "no cells"),
        (("--flavor", "seurat3"), "seurat_v3"),
    ],
)
def test_hvg_says_what_is_wrong(call: Call, small_store: Path, words: tuple[str, ...], said: str) -> None:
    result = call("hvg", small_store, *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_cards_of_several_stores_lie_beside_each_other(
    call: Call, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.mill").symlink_to(small_store)
    for store in (small_store, "other.mill"):
        assert call("card", store).exit_code == 0
    names = ("atlas.card.html", "atlas.card.json", "other.card.html", "other.card.json")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(names)


@pytest.mark.parametrize(
    ("words", "out", "files"),
    [
        (("card",), "x.html", ("x.html",)),
        (("card",), "x.html", ("x.json",)),
        (("hvg", "-n", 5), "x.txt", ("x.txt",)),
        (("hvg", "-n", 5), "x.csv", ("x.csv",)),
        (("hvg", "-n", 5), "x", ("x/hvg_info.json",)),
        (("hvg", "-n", 5), "x", ("x/hvg_analysis.png",)),
        (("query",), "x.csv", ("x.csv",)),
        (("query",), "x.parquet", ("x.parquet",)),
    ],
)
def test_no_file_is_replaced_unasked(
    call: Call, small_store: Path, tmp_path: Path, words: tuple[object, ...], out: str, files: tuple[str, ...]
) -> None:
    verb, *options = words
    asked = [verb, small_store, *(["SELECT 1 AS one"] if verb == "query" else []), *options, "-o", tmp_path / out]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    refused = call(*asked)
    assert refused.exit_code == 2
    assert "there is something already. To replace it, add --overwrite." in " ".join(refused.output.split())
    assert [(tmp_path / name).read_text() for name in files] == ["mine"] * len(files)
    assert call(*asked, "--overwrite").exit_code == 0
    assert [name for name in files if (tmp_path / name).read_bytes() == b"mine"] == []


@pytest.fixture
def uneven(tmp_path: Path, tiny_h5ad: Callable[..., Any]) -> Path:
    """Two sources, the second of which lacks the last 60 of 200 genes."""
    counts = np.random.default_rng(3).negative_binomial(1, 0.2, (80, 200))
    wide = tiny_h5ad("wide", counts=counts[:40])
    narrow = tiny_h5ad("narrow", counts=counts[40:, :140])
    return cm.build(tmp_path / "uneven.mill", [wide.path, narrow.path], vocabulary="union").path


def test_genes_that_a_source_did_not_measure_are_warned_of(call: Call, uneven: Path, tmp_path: Path) -> None:
    result = call("hvg", uneven, "-n", 150, "--flavor", "dispersion", "-o", tmp_path / "hvg")
    store = cm.open(uneven)
    chosen = cm.hvg(store, 150, flavor="dispersion").gene_ids
    narrow = dict(zip(store.gene_ids, store.measured("narrow").tolist(), strict=True))
    lacking = {"narrow": sum(not narrow[gene] for gene in chosen)}
    assert lacking["narrow"] > 0
    said = " ".join(result.stderr.split())
    assert f"{lacking['narrow']} in narrow" in said and "count as zero" in said and "--batch dataset" in said
    assert json.loads((tmp_path / "hvg" / "hvg_info.json").read_text())["not_measured"] == lacking
    found = call("hvg", uneven, "-n", 150, "--flavor", "dispersion", "--json")
    assert json.loads(found.stdout)["not_measured"] == lacking
    for words in (("--batch", "dataset"), ("--where", "dataset = 'wide'")):
        assert "as zero" not in call("hvg", uneven, "-n", 150, "--flavor", "dispersion", *words).stderr
    assert "as zero" not in call("hvg", uneven, "-n", 10, "--where", "dataset = 'wide'").stderr


@pytest.mark.parametrize("flavor", cm.statistics.FLAVORS)
def test_within_sources_what_one_did_not_measure_has_no_score_there(uneven: Path, flavor: Any) -> None:
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc", reason="seurat_v3 fits with scikit-misc")
    store = cm.open(uneven)
    table = cm.hvg(store, 200, flavor=flavor, batch="dataset").table.to_pydict()
    assert all(
        n <= measured for n, measured in zip(table["n_batches"], store.measured().sum(axis=0).tolist(), strict=True)
    )
    assert max(table["n_batches"]) == 2


def test_the_card_says_what_counts_as_zero_in_its_figure(
    call: Call, uneven: Path, small_store: Path, tmp_path: Path
) -> None:
    for store, said in ((uneven, True), (small_store, False)):
        assert call("card", store, "-o", tmp_path / "c.html", "--overwrite").exit_code == 0
        page = (tmp_path / "c.html").read_text(encoding="utf-8")
        assert ("1 of 2 sources did not measure all of the store's genes" in page) == said


def test_fewer_genes_than_asked_for_are_explained(call: Call, small_store: Path, tmp_path: Path) -> None:
    result = call("hvg", small_store, "-n", 99_999, "--flavor", "dispersion", "-o", tmp_path / "hvg")
    n = len(cm.hvg(cm.open(small_store), 99_999, flavor="dispersion").gene_ids)
    assert f"{n:,} genes instead of the 99,999 asked for" in " ".join(result.stderr.split())
    assert json.loads((tmp_path / "hvg" / "hvg_info.json").read_text())["asked"]["n"] == 99_999
    assert "instead" not in call("hvg", small_store, "-n", 10).stderr
