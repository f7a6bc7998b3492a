"""`cellmill genes`: vocabularies, identifiers, and how the genes of inputs were matched."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.commands import MillCommand, MillSubgroup
from cellmill.cli.display import console, examples, print_json, show_table
from cellmill.cli.parameters import AsJson, store_path
from cellmill.cli.vocabulary import EXAMPLES, load_vocabulary, vocabulary
from cellmill.errors import GeneMatchError, InputError, NotFoundError
from cellmill.storage.urls import UrlPath
from cellmill.units import count_text, share_text

__all__ = ["Species", "app", "map_ids", "report"]

app = typer.Typer(
    cls=MillSubgroup,
    no_args_is_help=True,
    help="Vocabularies, identifiers, and how genes were matched.",
    epilog=examples("cellmill genes map CD8A TP53 ENSG00000141510.17", "cellmill genes report atlas.mill"),
)


class Species(StrEnum):
    """Species with a shipped table of genes."""

    human = "human"
    mouse = "mouse"


_SHOWN_HINTS = 10
_SHOWN_CANDIDATES = 6
_USUAL_MATCH = 0.6
_SHOWN_DUPLICATES = 10
_MEANINGS = {
    cm.genes.Outcome.EXACT_ID: "an Ensembl id of the table, whatever its version",
    cm.genes.Outcome.RETIRED_ID: "an Ensembl id that was retired; the id that the gene has today is used",
    cm.genes.Outcome.SYMBOL_WITH_ID: "an Ensembl id written inside the name, as in TAP2_ENSG00000204267",
    cm.genes.Outcome.CURRENT_SYMBOL: "the symbol that the gene has today",
    cm.genes.Outcome.TENX_SYMBOL: "the name that a 10x Genomics reference gives the gene",
    cm.genes.Outcome.PREVIOUS_SYMBOL: "a symbol that the gene had before, according to HGNC",
    cm.genes.Outcome.ORTHOLOGUE_SYMBOL: "the earlier name of the human gene of the same symbol, for mouse",
    cm.genes.Outcome.ALIAS: "another name of the gene, according to HGNC",
    cm.genes.Outcome.AMBIGUOUS: "a name that may mean several genes, or a gene that the file names better; not used",
    cm.genes.Outcome.UNMATCHED: "a name that is not in the table; not used",
    cm.genes.Outcome.NOT_IN_VOCABULARY: "a gene that is known, but not in the vocabulary; not used",
}


def _is_store(path: Path) -> bool:
    return (path / "manifest.json").is_file()


app.command("vocabulary", cls=MillCommand, epilog=examples(*EXAMPLES))(vocabulary)


@app.command(
    "map",
    cls=MillCommand,
    epilog=examples(
        "cellmill genes map CD8A TP53 ENSG00000141510.17",
        "cellmill genes map --species mouse Cd8a Trp53",
        "cut -f1 genes.tsv | cellmill genes map - --json",
    ),
)
def map_ids(
    ids: Annotated[list[str], typer.Argument(metavar="GENE", help="Ids or symbols; - reads them from standard input.")],
    species: Annotated[
        Species | None,
        typer.Option("--species", metavar="NAME", help="human or mouse; recognised from the ids by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Translate gene ids and symbols, old ones too, to Ensembl ids, and say how each was found."""
    wanted = sys.stdin.read().split() if ids == ["-"] else list(ids)
    if not wanted:
        raise InputError("no genes were given: name them, or pipe them in and give -")
    chosen = species.value if species else cm.genes.recognise_species(wanted, None) or "human"
    found = cm.genes.resolve(wanted, None, cm.genes.GeneTable.load(chosen))
    rows: list[dict[str, Any]] = [
        {"query": query, "gene_id": gene_id, "outcome": outcome.name.casefold()}
        for query, gene_id, outcome in zip(wanted, found.ids, found.outcomes, strict=True)
    ]
    _add_hints(rows, chosen)
    if as_json:
        print_json({"species": chosen, "genes": rows})
        return
    show_table(["gene", chosen, "found as"], [[row["query"], row["gene_id"], row["outcome"]] for row in rows])
    hints = [f"{row['query']}: {row['hint']}" for row in rows if "hint" in row]
    for hint in hints[:_SHOWN_HINTS]:
        console().print(Text(hint), soft_wrap=True)
    if len(hints) > _SHOWN_HINTS:
        console().print(f"... and {count_text(len(hints) - _SHOWN_HINTS)} hints more: --json gives all")
    _explain([row["outcome"] for row in rows])


def _add_hints(rows: list[dict[str, Any]], species: str) -> None:
    """Say, of names that mean no gene, which genes they may have been meant for; nothing is resolved by that."""
    table, meant = cm.genes.GeneTable.load(species), {row["gene_id"] for row in rows}
    for row in rows:
        hint = None
        if row["outcome"] == cm.genes.Outcome.AMBIGUOUS.value:
            bearers = cm.genes.genes_of_name(row["query"], table)
            row["candidates"] = [{"gene_id": table.ids[one], "symbol": table.symbols[one]} for one in bearers]
            hint = _candidates_hint(row["candidates"], meant)
        elif row["outcome"] == cm.genes.Outcome.UNMATCHED.value:
            hint = _date_hint(row["query"], table) or _spelling_hint(row["query"], species)
        if hint:
            row["hint"] = hint


def _candidates_hint(candidates: list[dict[str, str]], meant: Container[str]) -> str | None:
    if not candidates:
        return None
    named = [f"{one['symbol']} ({one['gene_id']})" for one in candidates[:_SHOWN_CANDIDATES]]
    more = len(candidates) - len(named)
    said = f"may mean {', '.join(named)}" + (f" and {count_text(more)} more" if more else "")
    taken = len(candidates) == 1 and candidates[0]["gene_id"] in meant
    return said + (", which another of these names means as well" if taken else "")


def _date_hint(query: str, table: cm.genes.GeneTable) -> str | None:
    behind = cm.genes.genes_behind_a_date(query, table)
    if not behind:
        return None
    names = " or ".join(name if name == today else f"{name} (today {today})" for name, today in behind)
    return (
        f"looks like a date that a spreadsheet made of a gene's name, {names}; which it was, the file that the "
        "spreadsheet was made from tells"
    )


def _spelling_hint(query: str, species: str) -> str | None:
    """Return what an unmatched name may have been meant for: other case, or the other species."""
    for other in sorted(Species, key=lambda one: one.value != species):
        names = cm.genes.GeneTable.load(other.value).known_names
        for spelt in dict.fromkeys((query, query.upper(), query.capitalize())):
            if spelt not in names:
                continue
            if other.value == species:
                return f"upper and lower case count; {species} has {spelt}"
            return f"{other.value} has {spelt}: add --species {other.value}" + (
                "" if spelt == query else f" and write {spelt}"
            )
    return None


def _explain(outcomes: Iterable[str]) -> None:
    """Say what the outcomes that were shown mean, once each."""
    shown = {outcome.casefold() for outcome in outcomes}
    for outcome, meaning in _MEANINGS.items():
        if outcome.value in shown:
            console().print(Text(f"  {outcome.value}: {meaning}", style="dim"), soft_wrap=True)


@app.command(
    "report",
    cls=MillCommand,
    epilog=examples("cellmill genes report atlas.mill", "cellmill genes report gut.h5ad --vocabulary human --json"),
)
def report(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", parser=store_path, help="A store or its URL, or an input file or folder not built yet."
        ),
    ],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary", metavar="NAME", help="For an input: human, mouse or a JSON file; recognised by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how the genes of each input were matched to the vocabulary, and what was not."""
    is_remote = isinstance(path, UrlPath)
    if not is_remote and not path.exists():
        raise NotFoundError(f"{path}: there is nothing here; give a store or an input file")
    reports = (
        _reports_of_store(path) if is_remote or _is_store(path) else {path.name: _report_of_input(path, vocabulary)}
    )
    if as_json:
        print_json(reports)
        return
    for name, one in reports.items():
        _show_report(name, one)
    _explain(outcome for one in reports.values() for outcome, count in one["outcomes"].items() if count)


def _reports_of_store(path: Path) -> dict[str, Any]:
    store = cm.open(path)
    found = {}
    for source in store.manifest.sources:
        content = json.loads(store.local_file(source.report).read_text(encoding="utf-8"))
        found[source.name] = content.get("genes", content)
        measured = content.get("measured")
        found[source.name]["coverage"] = {
            "measured": None if measured is None else int(measured["n_genes"]),
            "of": store.n_genes,
        }
    return found


def _report_of_input(path: Path, vocabulary: str | None) -> dict[str, Any]:
    with cm.sources.open_source(path) as source:
        columns = source.genes
        species = cm.ingest.species_of(columns)
        words = load_vocabulary(vocabulary or species or "human")
        table = cm.genes.GeneTable.load(species) if species else None
        try:
            found = cm.ingest.align_columns(
                columns, vocabulary=words, table=table, min_match=_USUAL_MATCH, where=str(path)
            )
        except GeneMatchError:  # reported all the same: that is what the user wants to see
            found = cm.genes.align(
                columns.ids, columns.symbols, vocabulary=words, table=table, min_match=0.0, where=str(path)
            )
    result: dict[str, Any] = found.report.to_dict()
    return result


def _show_report(name: str, one: dict[str, Any]) -> None:
    matched, n_genes = one["matched"], one["n_genes"]
    share = share_text(one["share_matched"])
    console().print(
        Text(f"{name}: {count_text(matched)} of {count_text(n_genes)} genes matched ({share})", style="bold")
    )
    umi = one.get("umi_shares") or {}
    columns = ["found as", "genes", *(["share of UMIs"] if umi else [])]
    rows = [
        [outcome.casefold(), count, *([share_text(umi.get(outcome, 0), digits=2)] if umi else [])]
        for outcome, count in one["outcomes"].items()
        if count
    ]
    show_table(columns, rows)
    if names_from := one.get("names_from"):
        console().print(Text(f"genes are named by {names_from}"), soft_wrap=True)
    if coverage := one.get("coverage"):
        console().print(Text(_coverage_line(coverage)), soft_wrap=True)
    if examples_unmatched := one.get("unmatched_examples"):
        console().print(
            Text(f"not matched, for example: {', '.join(map(str, examples_unmatched[:10]))}"), soft_wrap=True
        )
    if duplicates := one.get("duplicates"):
        named = ", ".join(f"{d['gene_id']} ({' + '.join(d['names'])})" for d in duplicates[:_SHOWN_DUPLICATES])
        more = f" and {count_text(len(duplicates) - _SHOWN_DUPLICATES)} more"
        console().print(
            Text(
                f"{count_text(len(duplicates))} genes stand in several columns; their counts were summed: {named}"
                + (more if len(duplicates) > _SHOWN_DUPLICATES else "")
            ),
            soft_wrap=True,
        )


def _coverage_line(coverage: dict[str, Any]) -> str:
    measured, n_genes = coverage["measured"], coverage["of"]
    if measured is None:
        return "which of the store's genes were measured is not recorded: the store was built before that was kept"
    absent, share = n_genes - measured, share_text(measured / max(1, n_genes))
    return f"measured {count_text(measured)} of the store's {count_text(n_genes)} genes ({share})" + (
        f"; {count_text(absent)} were not measured, which is not zero" if absent else ""
    )
