"""The page of a card (floor 7): its numbers put into words, figures and tables. Must not know where they come from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cellmill.card.content import CardData
from cellmill.card.figures import draw_compositions, draw_genes, draw_spreads
from cellmill.page.document import drawn, render_document
from cellmill.units import count_text, share_text, size_text

__all__ = ["render_card"]

_SOURCES_SHOWN = 100
_PAIRS_SHOWN = 50
ABOUT_TITLES = {
    "title": "title",
    "licence": "licence",
    "doi": "DOI",
    "release": "release",
    "citation": "citation",
    "accession": "accession",
    "url": "address",
}


def render_card(data: CardData) -> str:
    """Return the card as one HTML document that fetches nothing."""
    shown = data.sources[:_SOURCES_SHOWN]
    return render_document(
        "cellmill.card",
        "card.html.j2",
        filters={"percent": percent_text, "short": short_number},
        data=data,
        headline=_headline(data),
        intro=_intro(data),
        figures={
            "composition": drawn(draw_compositions(data.compositions)),
            "spread": drawn(draw_spreads(data.spreads)),
            "genes": drawn(draw_genes(data.genes)),
        },
        sources=[{**one, "about_lines": about_lines(one["about"])} for one in shown],
        n_partial=_n_partial(data),
        n_left_out=len(data.sources) - len(shown),
        has_licences=any(one["about"].get("licence") for one in data.sources),
        n_without_licence=sum(not one["about"].get("licence") for one in data.sources),
        proof=_proof(data),
        pairs=(data.duplicates or {}).get("table", [])[:_PAIRS_SHOWN],
        facts=_facts(data),
    )


def short_number(value: float) -> str:
    """Return a large number in a few characters.

    Examples
    --------
    >>> short_number(996), short_number(61_320), short_number(5_400_000), short_number(2.1e9)
    ('996', '61.3 k', '5.4 M', '2.1 G')
    """
    for size, unit, least in ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e3, "k", 1e4)):
        if value >= 0.9995 * least:  # what rounds up to it
            return f"{value / size:.3g} {unit}"
    return count_text(int(value))


def percent_text(share: float | None) -> str:
    """Return a share in percent, rounded down as `share_text` does; a dash where there is none.

    Examples
    --------
    >>> percent_text(0.98765), percent_text(1.0), percent_text(0.00004), percent_text(0), percent_text(None)
    ('98.7 %', '100 %', '<0.1 %', '0 %', '–')
    """
    if share is None or math.isnan(share):
        return "–"
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    return f"{share_text(share).removesuffix('%')} %"


def about_lines(about: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, text, address or "") of what is known of a source's origin; a DOI has an address."""
    lines = []
    for key, title in ABOUT_TITLES.items():
        text = str(about.get(key) or "").strip()
        if text:
            doi = re.search(r"10\.\d{4,9}/\S+", text) if key == "doi" else None
            lines.append((title, text, f"https://doi.org/{doi[0]}" if doi else ""))
    return lines


def _intro(data: CardData) -> str:
    facts = data.facts
    vocabulary = facts["vocabulary"]["name"] or "unnamed"
    return (
        f"{count_text(facts['n_cells'])} cells from {_plural(facts['n_sources'], 'source')}, raw counts of "
        f"{count_text(facts['n_genes'])} genes of the vocabulary {vocabulary}."
    )


def _plural(n: int, noun: str) -> str:
    return f"one {noun}" if n == 1 else f"{count_text(n)} {noun}s"


def _headline(data: CardData) -> list[tuple[str, str, str]]:
    facts = data.facts
    per_cell = f" in all; {facts['genes_per_cell']:,.0f} genes a cell on average" if facts["genes_per_cell"] else ""
    per_count = f"{facts['bytes_per_count']:.2f} bytes per count" if facts["bytes_per_count"] else "no counts"
    inputs = facts["bytes_of_sources"]
    share = f"; the inputs take {size_text(inputs)}" if inputs else ""
    donors = next((one for one in data.compositions if one.title == "donor"), None)
    who = f"of {_plural(facts['n_sources'], 'source')}"
    if donors and donors.n_labels:
        named = facts["n_cells"] - donors.n_unlabelled
        of = f"{count_text(named)} of them " if donors.n_unlabelled else ""
        who += f", {of}of {_plural(donors.n_labels, 'donor')}"
    return [
        ("cells", short_number(facts["n_cells"]), who),
        ("counts above zero", short_number(facts["nnz"]), f"{count_text(facts['nnz'])}{per_cell}"),
        ("on disk", size_text(facts["bytes_on_disk"]), f"{per_count}{share}"),
    ]


def _n_partial(data: CardData) -> int:
    """Return how many sources are known not to have measured all genes of the store."""
    measured = [one["genes"]["n_measured"] for one in data.sources]
    return sum(n is not None and n < data.facts["n_genes"] for n in measured)


def _proof(data: CardData) -> dict[str, Any]:
    """Return what was proven of the counts of all sources together."""
    proofs = [one["proof"] for one in data.sources]
    proven = [one for one in proofs if "largest_count" in one]
    return {
        "n_sources": len(proven),
        "stored": sum(one["counts_stored"] or 0 for one in data.sources),
        "umis": sum(one.get("umis", 0) for one in proven),
        "largest": max((one["largest_count"] for one in proven), default=0),
        "others": len(proofs) - len(proven),
        "rounded": sum((one["rounded"] or {}).get("values", 0) for one in data.sources),
    }


def _facts(data: CardData) -> list[tuple[str, str]]:
    facts = data.facts
    vocabulary = facts["vocabulary"]
    lines = [
        ("digest", facts["digest"]),
        ("vocabulary", f"{vocabulary['name'] or 'unnamed'}, {count_text(vocabulary['n_genes'])} genes"),
        ("vocabulary hash", vocabulary["hash"]),
        ("format", f"version {facts['format_version']}, written by cellmill {facts['cellmill_version']}"),
        ("shards", count_text(facts["n_shards"])),
        ("bytes on disk", size_text(facts["bytes_on_disk"])),
        *((f"bytes of {name}", size_text(n)) for name, n in facts["bytes"].items()),
    ]
    for run in data.runs:
        skipped = len(run.get("skipped", []))
        text = f"{run.get('finished', '')}, {count_text(int(run.get('n_cells', 0)))} cells"
        lines.append(
            (run["name"].replace("-", " "), text + (f", {count_text(skipped)} inputs skipped" if skipped else ""))
        )
    return lines
