"""The report: the right numbers in all three files, one page that fetches nothing."""

from __future__ import annotations

import csv
import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from matplotlib.figure import Figure

from cellmill.errors import ConfigError, NotFoundError
from cellmill.evaluate import choose_genes, collect, collect_report, evaluate_run, figures, write_report
from cellmill.evaluate.collect import number_text
from cellmill.evaluate.metrics import interval
from cellmill.evaluate.report import ReportData
from cellmill.page.figure import legend_columns


@pytest.fixture(scope="module")
def data(experiment: Any) -> ReportData:
    genes = choose_genes(experiment.arms["base"][0], n=50)
    for folders in experiment.arms.values():
        for folder in folders:
            evaluate_run(folder, experiment.sets, hvg_genes=genes)
    return collect_report(
        "Gut & <blood>",
        arms=experiment.arms,
        base="base",
        control="more",
        intro="What does gut add?",
        notes=["a note & <more>"],
        plan_tables={"base": [{"name": "cells", "cells": 72, "draws": 72, "excluded": "none", "donors": None}]},
        provenance={"store": "digest 123"},
        next_command="cellmill run x.yaml",
    )


class Page(HTMLParser):
    """Collects what a test asks of a page."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr", "path", "use", "rect", "circle", "line", "stop"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.problems: list[str] = []
        self.feed(html)
        self.problems += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_fetches_nothing(data: ReportData, tmp_path: Path) -> None:
    files = write_report(tmp_path / "deep" / "report.html", data)
    html = files.html.read_text()
    page = Page(html)
    assert page.problems == []
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
        assert tag not in ("script", "link", "iframe", "object")
    styles = " ".join(re.findall(r"<style.*?</style>", html, re.S)) + " ".join(re.findall(r'style="[^"]*"', html))
    assert not re.findall(r"url\((?!#)", styles)
    assert "@import" not in html
    assert files.html.stat().st_size < 3_000_000
    ids = re.findall(r'<clipPath id="([^"]+)"', html)
    assert len(ids) == len(set(ids))  # figures in one page must not share what they refer to


def test_names_of_users_are_text_and_never_markup(data: ReportData, tmp_path: Path) -> None:
    html = write_report(tmp_path / "report.html", data).html.read_text()
    for raw in ("<blood>", "<gut>", "<test>", "<more>"):
        assert raw not in html
    text = " ".join(Page(html).text)
    assert "Gut & <blood>" in text
    assert "base & <gut>" in text


def test_the_numbers_are_the_same_in_page_json_and_csv(data: ReportData, tmp_path: Path, experiment: Any) -> None:
    files = write_report(tmp_path / "report.html", data)
    content = json.loads(files.json.read_text())
    with files.csv.open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == len(content["scores"]) == len(data.scores)
    text = " ".join(Page(files.html.read_text()).text)
    for row in content["table"]:
        seeds = [
            float(line["r2_mean"])
            for line in lines
            if (line["arm"], line["set"], line["method"], line["cell_type"])
            == (row["arm"], row["set"], "model", "(all)")
        ]
        assert len(seeds) == 2
        assert row["r2"]["mean"] == pytest.approx(np.mean(seeds))
        assert (row["r2"]["low"], row["r2"]["high"]) == (pytest.approx(min(seeds)), pytest.approx(max(seeds)))
        assert number_text(row["r2"]["mean"]) in text
    for one in data.headline:
        assert one.value in text
        assert one.detail in text
    assert content["headline"][0]["value"] == data.headline[0].value


def test_arms_are_compared_seed_by_seed(data: ReportData) -> None:
    def scores(arm: str) -> dict[str, float]:
        return {
            row["seed"]: row["r2_mean"]
            for row in data.scores
            if (row["arm"], row["set"], row["method"], row["cell_type"]) == (arm, "gut", "model", "(all)")
        }

    gut, base, more = scores("base & <gut>"), scores("base"), scores("more")
    row = next(row for row in data.table if (row.arm, row.set) == ("base & <gut>", "gut"))
    differences = [gut[seed] - base[seed] for seed in ("0", "1")]
    assert row.against_base is not None
    assert (row.against_base.low, row.against_base.high) == (min(differences), max(differences))
    assert row.against_control is not None
    assert row.against_control.mean == pytest.approx(np.mean([gut[seed] - more[seed] for seed in ("0", "1")]))
    assert next(row for row in data.table if row.arm == "base").against_base is None


def test_there_are_three_numbers_that_matter_whatever_the_arms(experiment: Any, data: ReportData) -> None:
    assert len(data.headline) == 3
    assert "against base" in data.headline[1].label
    assert "more" not in data.headline[1].label  # the size control is never the finding
    alone = collect_report("one", arms={"base": experiment.arms["base"][:1]})
    assert [one.label.split()[0] for one in alone.headline] == ["R²", "against", "cells"]
    assert "one seed" in alone.headline[0].detail
    uncontrolled = collect_report("two", arms=experiment.arms, base="base")
    assert len(uncontrolled.headline) == 3


@pytest.mark.parametrize("best", ["mean profile", "PCA"])
def test_the_headline_compares_with_the_best_baseline(data: ReportData, best: str) -> None:
    known = {"mean profile": interval([0.2]), "PCA": interval([0.2]), "unmeasured": interval([])}
    row = replace(data.table[0], r2=interval([0.25]), baselines={**known, best: interval([0.3])})
    accuracy, against, _ = collect._headline([row], [row.set], data.arms, row.arm, None)
    assert accuracy.detail.endswith(f"best baseline: {best} 0.300")
    assert against.label == f"against the best baseline, {best}"
    assert against.value == "−0.050"  # the baseline is better, and the headline says so


def test_a_report_of_one_arm_and_one_seed_has_no_intervals_and_no_empty_figures(
    experiment: Any, tmp_path: Path, data: ReportData
) -> None:
    alone = collect_report("one", arms={"only": experiment.arms["base"][:1]})
    html = write_report(tmp_path / "report.html", alone).html.read_text()
    assert "There is one seed" in html
    assert (
        "against"
        not in re.sub(
            r"Observed against|observed against|against the best baseline", "", " ".join(Page(html).text)
        ).split("Training")[0]
    )
    assert sum(tag == "svg" for tag, _ in Page(html).tags) == 4


def test_writing_again_gives_the_same_bytes(data: ReportData, tmp_path: Path) -> None:
    first = write_report(tmp_path / "a" / "report.html", data).html.read_bytes()
    assert write_report(tmp_path / "b" / "report.html", data).html.read_bytes() == first


def test_what_cannot_be_reported_is_told(experiment: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'base'"):
        collect_report("x", arms=experiment.arms, base="bse")
    with pytest.raises(ConfigError, match="at least one arm"):
        collect_report("x", arms={})
    with pytest.raises(NotFoundError, match="not a run folder"):
        collect_report("x", arms={"a": [tmp_path]})


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(0.12349, False, "0.123"), (-0.5, False, "−0.500"), (0.5, True, "+0.500"), (-0.00001, True, "±0.000"),
     (-0.00001, False, "0.000"), (float("nan"), True, "–")],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(value: float, sign: bool, text: str) -> None:
    assert number_text(value, sign=sign) == text


def test_many_long_cell_types_leave_the_bars_their_room(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "svg_of", lambda figure: drawn.append(figure) or "")
    many = {f"{i}: enterocytes of the large intestine, {'TMIGD1 MEP1A ' * 4}": 100 - i for i in range(68)}
    arms = tuple(replace(arm, composition={"dataset": {"one": 1}, "cell_type": many}) for arm in data.arms)
    figures.draw_composition(replace(data, arms=arms))
    (figure,) = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    bars, legends = figure.axes[::2], figure.axes[1::2]
    width = figure.bbox.width
    for axes in bars:
        assert axes.get_window_extent().width > 0.6 * width
    for axes in legends:
        box = axes.get_legend().get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
    names = [text.get_text() for text in legends[1].get_legend().get_texts()]
    assert names[-1] == "56 others"
    assert len(names) == 13
    for above, below in zip(legends, bars[1:], strict=False):
        assert above.get_legend().get_window_extent().y0 > below.get_window_extent().y1


@pytest.mark.parametrize(
    ("labels", "columns"), [(["a"] * 3, 3), (["a"] * 20, 6), (["x" * 40] * 13, 2), (["x" * 200], 1)], ids=str
)
def test_a_legend_has_as_many_columns_as_fit(labels: list[str], columns: int) -> None:
    assert legend_columns(labels, most=6) == columns
