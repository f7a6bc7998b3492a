"""`cellmill genes`: vocabularies, identifiers, and how the genes of inputs were matched."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson, check_out
from cellmill.errors import InputError, NotFoundError
from cellmill.units import count_text

__all__ = ["Species", "app", "load_vocabulary", "map_ids", "report", "vocabulary"]

app = typer.Typer(
    no_args_is_help=True,
    help="Vocabularies, identifiers, and how genes were matched.",
    epilog=examples("cellmill genes map CD8A TP53 ENSG00000141510.17", "cellmill genes report atlas.mill"),
)


class Species(StrEnum):
    """Species with a shipped table of genes."""

    human = "human"
    mouse = "mouse"


def _is_store(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def load_vocabulary(name: str) -> cm.Vocabulary:
    """Return the vocabulary of a shipped name (human, mouse), of a JSON file, or of a store."""
    path = Path(name)
    return cm.open(path).vocabulary if _is_store(path) else cm.Vocabulary.load(name)


@app.command(
    "vocabulary",
    epilog=examples(
        "cellmill genes vocabulary human",
        "cellmill genes vocabulary atlas.mill -o atlas-vocabulary.json",
        "cellmill genes vocabulary human --compare scgpt-vocab.json",
    ),
)
def vocabulary(
    name: Annotated[str, typer.Argument(metavar="NAME", help="human, mouse, a vocabulary's JSON file, or a store.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE.json", help="Write the vocabulary as JSON here.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="Say what it shares with another vocabulary.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a gene vocabulary, write it as JSON, or compare it with another."""
    if out is not None:
        check_out(out)
    words = load_vocabulary(name)
    found: dict[str, Any] = {
        "name": words.name or name,
        "n_genes": len(words),
        "hash": words.hash,
        "first_ids": list(words.ids[:5]),
        "specials": dict(words.specials),
    }
    if compare is not None:
        other = load_vocabulary(compare)
        mine, theirs = set(words.ids), set(other.ids)
        found["compared_with"] = {
            "name": other.name or compare,
            "hash": other.hash,
            "shared": len(mine & theirs),
            "only_here": len(mine - theirs),
            "only_there": len(theirs - mine),
        }
    if out is not None:
        words.to_json(out)
        found["written"] = str(out)
    if as_json:
        print_json(found)
    else:
        _show_vocabulary(found)


def _show_vocabulary(found: dict[str, Any]) -> None:
    shown = {"genes": found["n_genes"], "hash": found["hash"], "first ids": found["first_ids"]}
    if found["specials"]:
        shown["special tokens"] = ", ".join(f"{word} = {token}" for word, token in found["specials"].items())
    if other := found.get("compared_with"):
        shown[f"shared with {other['name']}"] = other["shared"]
        shown["only here"], shown["only there"] = other["only_here"], other["only_there"]
    if "written" in found:
        shown["written"] = found["written"]
    show_facts(f"vocabulary {found['name']}", shown)


@app.command(
    "map",
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
    rows = [
        {"query": query, "gene_id": gene_id, "outcome": outcome.name.casefold()}
        for query, gene_id, outcome in zip(wanted, found.ids, found.outcomes, strict=True)
    ]
    if as_json:
        print_json({"species": chosen, "genes": rows})
        return
    show_table(["gene", chosen, "found as"], [[row["query"], row["gene_id"], row["outcome"]] for row in rows])


@app.command(
    "report",
    epilog=examples("cellmill genes report atlas.mill", "cellmill genes report gut.h5ad --vocabulary human --json"),
)
def report(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A store, or an input file or folder not built yet.")],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary", metavar="NAME", help="For an input: human, mouse or a JSON file; recognised by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how the genes of each input were matched to the vocabulary, and what was not."""
    if not path.exists():
        raise NotFoundError(f"{path}: there is nothing here; give a store or an input file")
    reports = _reports_of_store(path) if _is_store(path) else {path.name: _report_of_input(path, vocabulary)}
    if as_json:
        print_json(reports)
        return
    for name, one in reports.items():
        _show_report(name, one)


def _reports_of_store(path: Path) -> dict[str, Any]:
    store = cm.open(path)
    found = {}
    for source in store.manifest.sources:
        content = json.loads((store.path / source.report.path).read_text(encoding="utf-8"))
        found[source.name] = content.get("genes", content)
    return found


def _report_of_input(path: Path, vocabulary: str | None) -> dict[str, Any]:
    with cm.sources.open_source(path) as source:
        columns = source.genes
        species = cm.genes.recognise_species(columns.ids, columns.symbols)
        words = load_vocabulary(vocabulary or species or "human")
        table = cm.genes.GeneTable.load(species) if species else None
        found = cm.genes.align(
            columns.ids, columns.symbols, vocabulary=words, table=table, min_match=0.0, where=str(path)
        )
    result: dict[str, Any] = found.report.to_dict()
    return result


def _show_report(name: str, one: dict[str, Any]) -> None:
    matched, n_genes = one["matched"], one["n_genes"]
    share = f"{one['share_matched']:.1%}"
    console().print(
        Text(f"{name}: {count_text(matched)} of {count_text(n_genes)} genes matched ({share})", style="bold")
    )
    umi = one.get("umi_shares") or {}
    columns = ["found as", "genes", *(["share of UMIs"] if umi else [])]
    rows = [
        [outcome.casefold(), count, *([f"{umi.get(outcome, 0):.2%}"] if umi else [])]
        for outcome, count in one["outcomes"].items()
        if count
    ]
    show_table(columns, rows)
    if examples_unmatched := one.get("unmatched_examples"):
        console().print(
            Text(f"not matched, for example: {', '.join(map(str, examples_unmatched[:10]))}"), soft_wrap=True
        )
    if duplicates := one.get("duplicates"):
        console().print(Text(f"{count_text(len(duplicates))} genes stand in several columns; their counts were summed"))
