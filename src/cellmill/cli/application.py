"""The application (floor 9): the verbs in their order, the options of all of them, and what happens on an error."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

import cellmill as cm
from cellmill.cli import (
    append,
    bench,
    build,
    card,
    commit,
    demo,
    doctor,
    duplicates,
    evaluate,
    export,
    genes,
    head,
    hvg,
    info,
    merge,
    pca,
    plan,
    protect,
    query,
    run,
    tokens,
    train,
    verify,
)
from cellmill.cli.commands import MillCommand, reword, without_flag_types
from cellmill.cli.display import console, error_console, examples
from cellmill.cli.errors import debug_wanted, report
from cellmill.cli.progress import set_quiet

__all__ = ["MillGroup", "app"]


class MillGroup(TyperGroup):
    """Turns whatever a verb raises into a message and an exit code."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the options of all verbs."""
        return without_flag_types(super().get_params(ctx))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the verb; on an error show it on standard error and exit with its code."""
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error, debug=bool(ctx.params.get("debug")) or debug_wanted(), console=error_console())
            if code is None:
                reword(error)
                raise
            raise typer.Exit(code) from None


app = typer.Typer(
    name="cellmill",
    cls=MillGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "cellmill demo",
        "cellmill build atlas.mill blood.h5ad gut.h5",
        "cellmill info atlas.mill",
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console().print(Text(f"cellmill {cm.__version__}"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Single-cell count matrices to training runs that can be named, resumed and compared."""
    set_quiet(quiet)


_DATA, _TRAINING, _OTHER = "Data", "Training", "Other"

app.command("build", cls=MillCommand, epilog=build.EPILOG, rich_help_panel=_DATA)(build.build)
app.command("commit", cls=MillCommand, epilog=commit.EPILOG, rich_help_panel=_DATA)(commit.commit)
app.command("append", cls=MillCommand, epilog=append.EPILOG, rich_help_panel=_DATA)(append.append)
app.command("merge", cls=MillCommand, epilog=merge.EPILOG, rich_help_panel=_DATA)(merge.merge)
app.command("info", cls=MillCommand, epilog=info.EPILOG, rich_help_panel=_DATA)(info.info)
app.command("head", cls=MillCommand, epilog=head.EPILOG, rich_help_panel=_DATA)(head.head)
app.command("query", cls=MillCommand, epilog=query.EPILOG, rich_help_panel=_DATA)(query.query)
app.command("duplicates", cls=MillCommand, epilog=duplicates.EPILOG, rich_help_panel=_DATA)(duplicates.duplicates)
app.command("protect", cls=MillCommand, epilog=protect.EPILOG, rich_help_panel=_DATA)(protect.protect)
app.command("verify", cls=MillCommand, epilog=verify.EPILOG, rich_help_panel=_DATA)(verify.verify)
app.command("bench", cls=MillCommand, epilog=bench.EPILOG, rich_help_panel=_DATA)(bench.bench)
app.command("card", cls=MillCommand, epilog=card.EPILOG, rich_help_panel=_DATA)(card.card)
app.add_typer(genes.app, name="genes", rich_help_panel=_DATA)
app.command("hvg", cls=MillCommand, epilog=hvg.EPILOG, rich_help_panel=_DATA)(hvg.hvg)
app.command("pca", cls=MillCommand, epilog=pca.EPILOG, rich_help_panel=_DATA)(pca.pca)
app.add_typer(export.app, name="export", rich_help_panel=_DATA)
app.add_typer(tokens.app, name="tokens", rich_help_panel=_TRAINING)
app.command("plan", cls=MillCommand, epilog=plan.EPILOG, rich_help_panel=_TRAINING)(plan.plan)
app.command("train", cls=MillCommand, epilog=train.EPILOG, rich_help_panel=_TRAINING)(train.train)
app.command("evaluate", cls=MillCommand, epilog=evaluate.EPILOG, rich_help_panel=_TRAINING)(evaluate.evaluate)
app.command("run", cls=MillCommand, epilog=run.EPILOG, rich_help_panel=_TRAINING)(run.run)
app.command("demo", cls=MillCommand, epilog=demo.EPILOG, rich_help_panel=_OTHER)(demo.demo)
app.command("doctor", cls=MillCommand, epilog=doctor.EPILOG, rich_help_panel=_OTHER)(doctor.doctor)
