"""A card says what is in a store, on one page that fetches nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellmill as cm
from cellmill.card import collect_card
from cellmill.card.content import Composition
from cellmill.card.figures import draw_compositions
from cellmill.card.page import about_lines, percent_text, short_number
from cellmill.card.tally import label_columns
from cellmill.errors import CorruptStoreError

ABOUT = """
sources:
  - inputs: "*"
    licence: CC-BY-4.0
    doi: 10.1000/182
    citation: Someone <et al.>
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> cm.Store:
    folder = tmp_path_factory.mktemp("card")
    files = cm.simulate.write_atlas(folder / "atlas", n_cells=500, n_genes=900, seed=5)
    (folder / "about.yaml").write_text(ABOUT, encoding="utf-8")
    return cm.build(folder / "atlas.mill", files, about=folder / "about.yaml", shard_cells=60, block_cells=50)


class Page(HTMLParser):
    """Collects what a page would fetch, its visible text, and whether its elements close."""

    VOID = ("meta", "link", "img", "br", "hr", "path", "use", "rect", "image")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.stack.append(tag)
        for name, value in attrs:
            address = name in ("src", "xlink:href", "href", "srcset", "data")
            if address and tag != "a" and value and not value.startswith(("#", "data:")):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def written(store: cm.Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cm.card(store, tmp_path_factory.mktemp("cards") / "card.html", name="Atlas <3")


def test_the_page_is_whole_and_fetches_nothing(written: Any) -> None:
    html = written.html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.stack == []
    assert page.fetched == []
    assert "@import" not in html
    assert not re.search(r"url\((?!#|\"?data:)", html)
    assert "Atlas <3" in page.text  # escaped, so that it is text
    assert html.count("<svg") == 3
    ids = re.findall(r' id="([^"]+)"', html)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert reference in ids


def test_the_page_says_what_is_in_the_store(written: Any, store: cm.Store) -> None:
    text = " ".join(Page(written.html.read_text(encoding="utf-8")).text.split())
    for said in (
        f"{store.n_cells:,} cells",
        f"{store.nnz:,} in all; ",
        store.digest,
        store.vocabulary_hash,
        "CC-BY-4.0",
        "10.1000/182",
        "Someone <et al.>",
        *(entry.xxh3 for entry in store.manifest.sources),
        *(entry.name for entry in store.manifest.sources),
        "Cells by tissue",
        "Cells by assay",
        "Cells by donor",
    ):
        assert said in text, said


def test_numbers_are_those_of_obs(written: Any, store: cm.Store) -> None:
    card = json.loads(written.json.read_text(encoding="utf-8"))
    tissues = dict(store.query("SELECT tissue, count(*) n FROM obs GROUP BY 1").to_pandas().to_numpy().tolist())
    by_title = {one["title"]: one for one in card["composition"]}
    assert by_title["tissue"]["cells"] == tissues
    assert sum(by_title["donor"]["cells"].values()) + by_title["donor"]["n_unlabelled"] == store.n_cells
    for one in card["spread"]:
        values = store.column(one["column"]).to_numpy(zero_copy_only=False)
        known = values[~np.isnan(values.astype(float))]
        assert sum(one["cells"]) + one["n_zero"] == len(known), one["column"]
        assert one["n_missing"] == len(values) - len(known)
        assert (one["smallest"], one["largest"]) == (pytest.approx(known.min()), pytest.approx(known.max()))
        tolerance = 0 if one["is_log"] else 1.5e-3
        assert one["median"] == pytest.approx(np.sort(known)[(len(known) - 1) // 2], abs=tolerance)
        inside = np.histogram(known[known > 0] if one["is_log"] else known, bins=one["edges"])[0]
        if one["is_log"]:
            assert inside.tolist() == one["cells"]


def test_genes_of_every_source_are_accounted_for(written: Any, store: cm.Store) -> None:
    card = json.loads(written.json.read_text(encoding="utf-8"))
    assert len(card["sources"]) == len(store.manifest.sources)
    for one in card["sources"]:
        assert sum(one["genes"]["outcomes"].values()) == one["genes"]["n_genes"]
        assert one["genes"]["n_measured"] == int(store.measured(one["name"]).sum())
        assert one["about"]["licence"] == "CC-BY-4.0"
    assert sum(one["counts_stored"] for one in card["sources"]) == store.nnz
    assert card["bytes"]["counts"] == store.n_bytes


def test_gene_statistics_of_a_sample_read_no_more_cells(store: cm.Store) -> None:
    assert collect_card(store, gene_cells=50).to_dict()["gene_statistics"]["n_cells"] == 50
    assert collect_card(store).to_dict()["gene_statistics"]["n_cells"] == store.n_cells


def test_obs_is_read_a_shard_at_a_time(store: cm.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = type(store.obs).to_arrow

    def watched(table: Any, columns: Any = None, rows: Any = None) -> Any:
        asked.append(len(table) if rows is None else len(rows))
        return read(table, columns, rows)

    monkeypatch.setattr(type(store.obs), "to_arrow", watched)
    collect_card(store)
    assert max(asked) == max(store.manifest.shards.n_cells)
    assert len(asked) == len(store.manifest.shards) > 3


def test_a_store_without_licence_says_how_to_record_one(tmp_path: Path, tiny_h5ad: Any) -> None:
    plain = cm.build(tmp_path / "plain.mill", [tiny_h5ad("one").path], vocabulary="union")
    text = " ".join(Page(cm.card(plain, tmp_path / "card.html").html.read_text(encoding="utf-8")).text.split())
    assert "No licence was recorded: cellmill build --about about.yaml" in text
    assert "1 cell has no counts and is not drawn" in text  # the empty one


def test_cells_without_counts_or_labels_make_a_card(tmp_path: Path, tiny_h5ad: Any) -> None:
    empty = tiny_h5ad("empty", counts=np.zeros((3, 4), dtype=np.int64), obs={})
    store = cm.build(tmp_path / "empty.mill", [empty.path], vocabulary="union")
    files = cm.card(store, tmp_path / "card.html")
    assert json.loads(files.json.read_text(encoding="utf-8"))["gene_statistics"] is None
    assert Page(files.html.read_text(encoding="utf-8")).stack == []


def test_a_report_that_is_no_json_is_named(tmp_path: Path, tiny_h5ad: Any) -> None:
    store = cm.build(tmp_path / "s.mill", [tiny_h5ad("one").path], vocabulary="union")
    (store.path / "reports" / "00000.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorruptStoreError, match=r"00000\.json"):
        cm.card(store, tmp_path / "card.html")
    assert not (tmp_path / "card.html").exists()


def test_columns_are_found_by_the_names_that_files_give_them() -> None:
    schema = {"Celltype": "category", "donor_id": "category", "tissue": "string", "tissue_general": "string"}
    assert label_columns(schema) == {"tissue": "tissue", "donor": "donor_id", "cell type": "Celltype"}
    assert label_columns({"age": "float64"}) == {}


def test_a_column_of_the_authors_keeps_its_name(tmp_path: Path, tiny_h5ad: Any) -> None:
    """A stimulation is no disease and a sample no donor: only columns of the common schema are called by its words."""
    obs = {"condition": ["ctrl", "stim"] * 4, "sample": ["a", "b"] * 4, "cell_type": ["x"] * 8, "sex": ["f"] * 8}
    file = tiny_h5ad("one", counts=np.ones((8, 5), dtype=np.int64), obs=obs)
    store = cm.build(tmp_path / "s.mill", [file.path], vocabulary="union")
    files = cm.card(store, tmp_path / "card.html")
    shown = Page(files.html.read_text(encoding="utf-8")).text
    for title in ("condition", "sample", "cell type", "sex"):
        assert f"Cells by {title}" in shown
    assert "disease" not in shown and "donor" not in shown
    titles = {one["column"]: one["title"] for one in json.loads(files.json.read_text(encoding="utf-8"))["composition"]}
    assert titles == {
        "condition": "condition",
        "sample": "sample",
        "cell_type": "cell type",
        "sex": "sex",
        "dataset": "source",
    }


def test_numbers_are_written_as_people_read_them() -> None:
    assert [short_number(n) for n in (9_999, 12_345, 999_999, 1_000_000_000)] == ["10 k", "12.3 k", "1 M", "1 G"]
    assert percent_text(0.99999) == "99.9 %"  # 100 % is said of nothing less
    assert about_lines({"doi": "https://doi.org/10.1/x", "licence": ""}) == [("DOI", "https://doi.org/10.1/x", "")]
    assert about_lines({"doi": "10.1000/182"})[0][2] == "https://doi.org/10.1000/182"


def test_what_was_filtered_and_rounded_is_told(tmp_path: Path, tiny_h5ad: Any) -> None:
    counts = np.full((40, 12), 3.0)
    counts[:, 0] = 1.0004
    counts[:10, 1:] = 0
    file = tiny_h5ad("one", counts=counts)
    store = cm.build(tmp_path / "s.mill", [file.path], vocabulary="union", allow_rounding=1e-3, min_counts=5)
    text = " ".join(Page(cm.card(store, tmp_path / "card.html").html.read_text(encoding="utf-8")).text.split())
    assert re.search(r"\d+ values that were almost whole were rounded", text)
    assert "30 of 40; the others did not pass the filters" in text


def test_cells_without_a_label_are_told_in_words_and_no_bar_that_dwarfs_the_others() -> None:
    def bars(n_unlabelled: int) -> tuple[str, list[str]]:
        svg = draw_compositions([Composition("tissue", "tissue", 2, n_unlabelled, {"blood": 30, "gut": 10})])
        return svg, re.findall(r'<path d="([^"]+)" clip-path', svg)  # what is drawn within the axes

    without, drawn = bars(0)
    assert len(drawn) == 2 and "no value" not in without
    for n, words in ((12_345, "12,345 cells have no value"), (1, "1 cell has no value")):
        svg, found = bars(n)
        assert words in svg
        lengths = [
            [max(xs) - min(xs) for xs in ([float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)] for path in paths)]
            for paths in (drawn, found)
        ]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.02)  # scaled by the labels that there are
