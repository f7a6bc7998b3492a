"""`cellmill protect`: register an evaluation set, so that nobody changes it by mistake."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.parameters import AsJson, store_path
from cellmill.units import count_text

__all__ = ["EPILOG", "protect"]

EPILOG = examples(
    "cellmill protect galen.mill --name aml-galen-2019",
    "cellmill protect galen.mill --release",
)


def protect(
    store: Annotated[Path, typer.Argument(metavar="STORE", parser=store_path, help="A store in a folder.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the evaluation set; else the folder's.")] = "",
    release: Annotated[bool, typer.Option("--release", help="Take the protection away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register a store as an evaluation set: build, append and merge then refuse to change it."""
    if release:
        had = cm.store.release_store(store)
        if as_json:
            print_json({"released": had})
        else:
            words = "is released: it can be changed and replaced again" if had else "was not protected"
            console().print(Text(f"{store} {words}"), soft_wrap=True)
        return
    made = cm.store.protect_store(store, name)
    if as_json:
        print_json(asdict(made))
        return
    console().print(
        Text(f"{store} is protected as {made.name!r} since {made.since}: {count_text(made.n_cells)} cells"),
        soft_wrap=True,
    )
    line = f"  exclude: [{{store: {store}, by: [uid, fingerprint, donor_id], on_leak: refuse}}]"
    console().print(Text(f"To keep its cells out of training, in mix.yaml:\n{line}"), soft_wrap=True)
