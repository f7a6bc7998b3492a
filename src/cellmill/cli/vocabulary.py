"""`cellmill genes vocabulary`: show, build, convert and compare gene vocabularies."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import cellmill as cm
from cellmill.cli.display import console, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson, check_out
from cellmill.errors import ConfigError, InputError
from cellmill.units import count_text, share_text

__all__ = ["EXAMPLES", "load_vocabulary", "vocabulary"]

EXAMPLES = (
    "cellmill genes vocabulary human",
    "cellmill genes vocabulary atlas.mill -o atlas-vocabulary.json",
    "cellmill genes vocabulary human --compare scgpt-vocab.json",
    "cellmill genes vocabulary a.h5ad b.mill --form mosaicfm -o vocab.json",
    "cellmill genes vocabulary a.h5ad --base tahoe.json --keep base -o v.json",
    "cut -f1 genes.tsv | cellmill genes vocabulary - --form scgpt -o v.json",
)


class Keep(StrEnum):
    """Which genes a vocabulary has that is built on a base."""

    base = "base"
    shared = "shared"
    all = "all"


class Order(StrEnum):
    """In which order genes are numbered."""

    id = "id"
    given = "given"
    frequency = "frequency"


class ModelLayout(StrEnum):
    """Where special tokens stand."""

    cellmill = "cellmill"
    scgpt = "scgpt"
    mosaicfm = "mosaicfm"


def load_vocabulary(name: str) -> cm.Vocabulary:
    """Return the vocabulary of a shipped name (human, mouse), of a JSON file, or of a store."""
    path = Path(name)
    return cm.open(path).vocabulary if (path / "manifest.json").is_file() else cm.Vocabulary.load(name)


def vocabulary(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="human, mouse, a vocabulary's JSON file, a store; or what to build one from: several of these, count "
            "matrices, text files of one id a line (.txt), - for standard input.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE.json", help="Write the vocabulary as JSON here.")
    ] = None,
    form: Annotated[
        ModelLayout,
        typer.Option(
            "--form",
            metavar="NAME",
            help="How to write it: cellmill (ids, symbols, hash), or a plain map as scgpt (by symbol) or mosaicfm "
            "(by id) read it.",
        ),
    ] = ModelLayout.cellmill,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out if it is there.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="NAME", help="A vocabulary whose genes keep their tokens: human, mouse, JSON file, store."
        ),
    ] = None,
    keep: Annotated[
        Keep,
        typer.Option(
            "--keep",
            metavar="WHICH",
            help="With --base: base (its genes, the others are left out and counted), shared (those of them that a "
            "NAME has), all (further genes after them).",
        ),
    ] = Keep.base,
    own_ids: Annotated[
        bool, typer.Option("--own-ids", help="Take ids as they are, instead of resolving names to Ensembl ids.")
    ] = False,
    order: Annotated[
        Order,
        typer.Option(
            "--order", metavar="WHICH", help="Of new genes: id (ascending), given, frequency (in most inputs first)."
        ),
    ] = Order.id,
    layout: Annotated[
        ModelLayout | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="Number all tokens anew: cellmill (4 special tokens first), scgpt (3 after the genes), mosaicfm (3 "
            "first, padded to a multiple of 64).",
        ),
    ] = None,
    pad_to: Annotated[
        int | None,
        typer.Option("--pad-to", metavar="N", min=1, help="Fill up with <junk0>, <junk1>, ... to a multiple of N."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="Say what it shares with another vocabulary.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a gene vocabulary; build one from files, lists and other vocabularies; write it; compare it with another."""
    if out is not None:
        check_out(out)
        _require_free(out, overwrite=overwrite)
    elif form is not ModelLayout.cellmill:
        raise ConfigError(f"--form {form.value} says how to write: add -o FILE.json")
    if base is None and keep is not Keep.base:
        raise ConfigError(f"--keep {keep.value} is about the genes of a base: add --base NAME")
    found_parts: list[dict[str, Any]] = []
    shown_as_it_is = base is None and not own_ids and len(names) == 1 and _is_vocabulary(names[0])
    if shown_as_it_is:
        words = load_vocabulary(names[0])
        if layout is not None:
            words = words.laid_out(layout.value, pad_to=pad_to)
        elif pad_to is not None:
            words = words.padded(pad_to)
    else:
        built = cm.ingest.build_vocabulary(
            [_listed(name) for name in names],
            base=base,
            keep=keep.value,
            own_ids=own_ids,
            order=order.value,
            layout=None if layout is None else layout.value,
            pad_to=pad_to,
            name="" if out is None else out.name.partition(".")[0],
        )
        words, found_parts = built.vocabulary, [part.to_dict() for part in built.parts]
    found = _facts(words, words.name or names[0])
    found["parts"] = found_parts
    if compare is not None:
        found["compared_with"] = _compared(words, load_vocabulary(compare), compare)
    if out is not None:
        _require_free(out, overwrite=overwrite)  # it may have come meanwhile
        words.to_json(out, form=form.value)
        found["written"] = str(out)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _is_vocabulary(name: str) -> bool:
    path = Path(name)
    return name in cm.genes.SPECIES or (path / "manifest.json").is_file() or ".json" in path.suffixes


def _listed(name: str) -> str | list[str]:
    if name != "-":
        return name
    ids = sys.stdin.read().split()
    if not ids:
        raise InputError("no genes were given on standard input: pipe ids in, one a line")
    return ids


def _require_free(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: there is a file already; give another name, or --overwrite to replace it")


def _facts(words: cm.Vocabulary, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "n_genes": len(words),
        "n_tokens": words.n_tokens,
        "n_padding": words.n_padding,
        "hash": words.hash,
        "first_ids": list(words.ids[:5]),
        "specials": dict(words.specials),
    }


def _compared(words: cm.Vocabulary, other: cm.Vocabulary, name: str) -> dict[str, Any]:
    overlap = cm.genes.compare_vocabularies(words, other)
    result = {"name": other.name or name, "hash": other.hash, **overlap.to_dict()}
    if not overlap.shared:
        result["hint"] = _no_share_hint(overlap, words, other)
    return result


def _no_share_hint(overlap: cm.genes.Overlap, mine: cm.Vocabulary, other: cm.Vocabulary) -> str:
    """Say why two vocabularies share no id: of different species, or one keyed by symbols and the other by ids."""
    species = (overlap.species_here, overlap.species_there)
    if None not in species and species[0] != species[1]:
        return f"they are of two species, {species[0]} here and {species[1]} there"
    first_ids = f"here {', '.join(mine.ids[:1])}, there {', '.join(other.ids[:1])}"
    if overlap.same_genes:
        return (
            f"the ids are written in two ways ({first_ids}); {count_text(overlap.same_genes)} genes are the same when "
            "symbols are resolved, as `cellmill build` does: cellmill genes map NAME... shows each"
        )
    return f"no id of one is in the other ({first_ids})"


def _show(found: dict[str, Any]) -> None:
    shown: dict[str, Any] = {"genes": found["n_genes"], "hash": found["hash"], "first ids": found["first_ids"]}
    specials = {word: token for word, token in found["specials"].items() if not word.startswith("<junk")}
    if specials:
        shown["special tokens"] = ", ".join(f"{word} = {token}" for word, token in specials.items())
    if found["n_padding"]:
        shown["padding"] = f"{found['n_padding']}, so that there are {count_text(found['n_tokens'])} tokens"
    if other := found.get("compared_with"):
        shown |= _shown_comparison(other)
    if "written" in found:
        shown["written"] = found["written"]
    show_facts(f"vocabulary {found['name']}", shown)
    if found["parts"]:
        _show_parts(found["parts"])


def _shown_comparison(other: dict[str, Any]) -> dict[str, Any]:
    shares = f"{share_text(other['share_here'])} of these, {share_text(other['share_there'])} of those"
    shown: dict[str, Any] = {f"shared with {other['name']}": f"{count_text(other['shared'])} ({shares})"}
    if other["shared"]:
        shown["of which with the same token"] = other["same_token"]
    for where in ("here", "there"):
        listed = ", ".join(other[f"examples_{where}"])
        shown[f"only {where}"] = count_text(other[f"only_{where}"]) + (f", for example {listed}" if listed else "")
    if other["same_genes"] is not None:
        shown["the same when symbols are resolved"] = other["same_genes"]
    if differing := other["specials_that_differ"]:
        shown["special tokens that differ"] = ", ".join(
            f"{word} ({'none' if here is None else here} here, {'none' if there is None else there} there)"
            for word, (here, there) in differing.items()
        )
    if "hint" in other:
        shown["why"] = other["hint"]
    return shown


def _show_parts(parts: list[dict[str, Any]]) -> None:
    has_base = any(part["in_base"] is not None for part in parts)
    columns = ["built from", "genes", *(["in the base"] if has_base else []), "left out", "for example"]
    show_table(
        columns,
        [
            [part["name"], part["n_genes"], *([part["in_base"]] if has_base else []), part["left_out"],
             ", ".join(part["examples"])]
            for part in parts
        ],
    )  # fmt: skip
    outcomes = ", ".join(
        f"{count_text(count)} {outcome}"
        for outcome, count in sorted(_summed([part["outcomes"] for part in parts]).items(), key=lambda pair: -pair[1])
    )
    console().print(f"recognised: {outcomes}", soft_wrap=True)


def _summed(counts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
