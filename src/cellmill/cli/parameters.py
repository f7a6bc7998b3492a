"""Arguments and options that several verbs share (floor 9), so that they are named and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellmill.errors import ConfigError, NotFoundError, StoreExistsError
from cellmill.storage.urls import UrlPath, is_url

__all__ = [
    "About",
    "AllowRounding",
    "AsJson",
    "BlockCells",
    "Counts",
    "DaskAddress",
    "DatasetName",
    "Downloads",
    "DryRun",
    "Experiment",
    "FileFormat",
    "Inputs",
    "MaxMito",
    "Memory",
    "MinCellsPerGene",
    "MinCounts",
    "MinGenes",
    "MinMatch",
    "NoDuplicates",
    "ObsMap",
    "OverwriteFile",
    "RemoveDownloads",
    "Rename",
    "Scratch",
    "SkipBad",
    "StoreArgument",
    "Threads",
    "Verbose",
    "Where",
    "WhereIn",
    "Workers",
    "check_free",
    "check_out",
    "listed",
    "no_match_advice",
    "part_of_many",
    "renames",
    "store_path",
]


def store_path(text: str) -> Path:
    """Return a path, or a URL as one."""
    return UrlPath(text) if is_url(text) else Path(text)


StoreArgument = Annotated[
    Path,
    typer.Argument(
        metavar="STORE",
        parser=store_path,
        help="A store: a folder made by `cellmill build`, or the URL of one (s3://, gs://, https://).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for programs.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only cells for which this condition over obs holds."),
]
Experiment = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The experiment: data, arms, model, evaluation.")]

# those of cellmill.sources and stores, as a test holds: help must not wait for what reads them
_KINDS = (
    "h5ad, zarr, loom, 10x-h5, mex, mex-genes-x-cells, mex-cells-x-genes, 3ca, parquet, scbank, csv, "
    "csv-genes-x-cells, csv-cells-x-genes, store"
)

# how inputs are read: `build` and `append`
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files and folders of counts (h5ad, 10x HDF5, Matrix Market, CSV, token lists, ...), folders of these, "
        "patterns, stores, URLs of files.",
    ),
]
MinMatch = Annotated[
    float, typer.Option("--min-match", metavar="SHARE", help="Refuse a file of which fewer genes are matched.")
]
Counts = Annotated[
    str, typer.Option("--counts", metavar="MATRIX", help="Where the raw counts are: X, raw, layers/NAME, or auto.")
]
Rename = Annotated[
    list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Rename a column of obs; may be repeated.")
]
ObsMap = Annotated[
    Path | None,
    typer.Option("--obs-map", metavar="FILE", help="Mapping file (YAML): columns, values, constants, ontology terms."),
]
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset-name", metavar="NAME", help="Name the dataset; {name} stands for the file's own."),
]
FileFormat = Annotated[
    str | None,
    typer.Option("--format", metavar="KIND", help=f"{_KINDS}; recognised by content by default."),
]
About = Annotated[
    Path | None,
    typer.Option(
        "--about",
        metavar="FILE.yaml",
        help="Licence, DOI, release, citation of inputs by pattern, to be kept.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out inputs that cannot be used, and list them, instead of stopping.")
]
AllowRounding = Annotated[
    float,
    typer.Option(
        "--allow-rounding",
        metavar="DISTANCE",
        help="Round values so near to a whole number, for example 1e-3, and report how many. Off by default.",
    ),
]
WhereIn = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="SQL", help="Take only cells for which this condition over obs and their facts holds."
    ),
]
MinCounts = Annotated[
    int, typer.Option("--min-counts", metavar="N", min=0, help="Take only cells with N counts, over all genes.")
]
MinGenes = Annotated[
    int, typer.Option("--min-genes", metavar="N", min=0, help="Take only cells with a count of N genes.")
]
MaxMito = Annotated[
    float | None,
    typer.Option("--max-mito", metavar="SHARE", help="Leave out cells with a larger share of mitochondrial counts."),
]
MinCellsPerGene = Annotated[
    int,
    typer.Option(
        "--min-cells-per-gene",
        metavar="N",
        min=0,
        help="Leave out genes detected in fewer cells of all inputs together; reads them twice.",
    ),
]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")]
BlockCells = Annotated[
    int, typer.Option("--block-cells", metavar="N", min=1, help="Cells read at once; memory grows with it.")
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="For sorting by cell, in each process; beyond it, files. 256MiB by default."
    ),
]
Scratch = Annotated[
    Path | None,
    typer.Option("--scratch", metavar="DIR", help="Where files of sorting and unpacking go; TMPDIR by default."),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say for each input what it is read as, and what in it says so.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Processes; by default 1, more where there is much to do."),
]
DaskAddress = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Work on the Dask cluster whose scheduler is at this address."),
]
NoDuplicates = Annotated[
    bool,
    typer.Option("--no-duplicates", help="Do not look for equal cells at the end; cellmill duplicates does later."),
]
Downloads = Annotated[
    Path | None,
    typer.Option("--downloads", metavar="DIR", help="Where files behind URLs are fetched to; the cache by default."),
]
RemoveDownloads = Annotated[
    bool, typer.Option("--remove-downloads", help="Delete what was fetched from URLs when the store is finished.")
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=0, help="Threads; 0 is one per core.")]


def part_of_many(text: str) -> tuple[int, int]:
    """Return (i, n) from a text "i/n", counted from 1.

    Raises
    ------
    ConfigError
        For a text that is not of this form.
    """
    part, slash, parts = (piece.strip() for piece in text.partition("/"))
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"--task {text!r}: expected I/N with I from 1 to N, for example 1/8")
    return int(part), int(parts)


def renames(pairs: list[str]) -> dict[str, str]:
    """Return {old: new} from texts "old=new".

    Raises
    ------
    ConfigError
        For a text that is not of this form, or a column renamed twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new):
            raise ConfigError(f"--rename {pair!r}: expected OLD=NEW, for example --rename donor=donor_id")
        if found.get(old, new) != new:
            raise ConfigError(f"--rename: the column {old!r} is given two new names, {found[old]!r} and {new!r}")
        found[old] = new
    return found


def check_out(path: Path, *, endings: tuple[str, ...] = ()) -> None:
    """Check, before anything is computed, that a file can be written at `path`.

    Raises
    ------
    ConfigError
        When the ending is not one of `endings` (if there are any), or `path` is a folder.
    NotFoundError
        When the folder of `path` is not there.
    """
    if endings and path.suffix not in endings:
        known = " or ".join([", ".join(endings[:-1]), endings[-1]] if len(endings) > 1 else endings)
        raise ConfigError(f"{path}: cannot tell the format by the ending {path.suffix!r}; use {known}")
    if path.is_dir():
        raise ConfigError(f"{path}: this is a folder; give the name of a file to write, for example {path / 'out'}")
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: there is no such folder to write {path.name} in; make it first")


def check_free(*paths: Path, overwrite: bool) -> None:
    """Check, before anything is computed, that no file is replaced of which nobody has said so.

    Raises
    ------
    StoreExistsError
        When one of `paths` is there and `overwrite` is not set.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise StoreExistsError(f"{path}: there is something already. To replace it, add --overwrite.")


def no_match_advice(store: Path) -> str:
    """Return how to see which values a column has, for a condition that no cell meets."""
    return f'To see what values a column has: cellmill query {store} "SELECT DISTINCT dataset FROM obs"'


def listed(text: str | None) -> list[str] | None:
    """Return the names in a comma-separated list, or None when no list is given.

    Raises
    ------
    ConfigError
        When the list names nothing.

    Examples
    --------
    >>> listed("cell_type, donor_id")
    ['cell_type', 'donor_id']
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"expected names with commas between, for example cell_type,donor_id; found {text!r}")
    return names
