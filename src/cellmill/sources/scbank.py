"""scBank folders, as scGPT writes its corpora (floor 3, sources).

Knows the manifest, the vocabulary and the tables of a bank. The lists themselves are read by `token_lists.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cellmill.errors import FormatError, NotFoundError
from cellmill.sources.base import Limits, MatrixReader, Source
from cellmill.sources.gene_tokens import read_token_table
from cellmill.sources.parquet import SHORT_GROUP_ROWS, row_names, shard_labels
from cellmill.sources.side_table import cell_table
from cellmill.sources.token_lists import TokenListReader, TokenShard, look_at_shard

__all__ = ["MANIFEST", "ScbankSource", "is_scbank"]

MANIFEST, VOCABULARY, STUDIES = "manifest.json", "gene_vocab.json", "studytable.json"
TABLE = ".datatable.parquet"
ID = "id"


def is_scbank(folder: Path) -> bool:
    """Whether a folder is a bank: a manifest beside a vocabulary or tables, or one of these in a folder NAME.scb."""
    manifest, vocabulary = ((folder / name).is_file() for name in (MANIFEST, VOCABULARY))
    tables = any(folder.glob(f"*{TABLE}"))
    return manifest and (vocabulary or tables) if folder.suffix != ".scb" else manifest or vocabulary or tables


class ScbankSource(Source):
    """One bank; its matrices are its tables, the one that the manifest names as main data first.

    Parameters
    ----------
    path : Path
        The folder, by custom `NAME.scb`.
    limits : Limits, optional

    Raises
    ------
    FormatError
        Manifest, vocabulary or the main table is missing, damaged, or contradicts the others.

    Notes
    -----
    A bank names no cells: they are called by the column `id`. Genes are those of its vocabulary: which of them the
    data was looked for is not recorded.
    """

    kind = "scbank"

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        if not path.is_dir():
            raise NotFoundError(f"{path}: no such folder; an scBank is a folder with {MANIFEST} and {VOCABULARY}.")
        main = self._main_table(_read_json(path / MANIFEST))
        if not (path / VOCABULARY).is_file():
            raise FormatError(
                f"{path}: {VOCABULARY} is missing, without which nobody knows what the tokens of its lists mean. Put "
                "the vocabulary there with which the bank was written."
            )
        table = read_token_table(path / VOCABULARY)
        self.genes = table.genes
        self.note(
            f"genes are those of {VOCABULARY} ({table.span}); a bank does not say which of them were measured, so that "
            "all of them count as measured"
        )
        self._tables = self._look(main)
        self._found: dict[str, MatrixReader] = {
            name: TokenListReader(name, [shard], table, limits=self.limits, note=self.note)
            for name, shard in self._tables.items()
        }
        self.n_cells = self._tables[main].n_cells

    @property
    def name(self) -> str:
        """Name of the data set: that of the folder, without .scb."""
        return self.path.resolve().name.removesuffix(".scb")

    def starts_anywhere(self, matrix: str) -> bool:
        """Whether row groups are short: reading begins at one's first row, whichever is wanted."""
        self._reader(matrix)
        return max(self._tables[matrix].group_rows, default=0) <= SHORT_GROUP_ROWS

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _main_table(self, manifest: Any) -> str:
        """Return the key of the main table."""
        where = self.path / MANIFEST
        main, form = (
            manifest.get(key) if isinstance(manifest, dict) else None for key in ("main_data", "on_disk_format")
        )
        if not isinstance(main, str) or not main or Path(main).name != main:
            raise FormatError(f"{where}: main_data is {main!r}, expected the name of a table, such as 'X'.")
        if (self.path / f"{main}{TABLE}").is_file():
            return main
        if form == "json":
            table = self.path / f"{main}.datatable"
            raise FormatError(
                f"{self.path}: its tables are JSON, which cellmill does not read. To convert the main one, in Python:\n"
                "    import pyarrow.json, pyarrow.parquet\n"
                f"    pyarrow.parquet.write_table(pyarrow.json.read_json({f'{table}.json'!r}), {f'{table}.parquet'!r})"
            )
        tables = ", ".join(sorted(file.name for file in self.path.glob(f"*{TABLE}"))) or "none"
        raise FormatError(f"{where} names the main table {main!r}, but there is no {main}{TABLE}; tables: {tables}.")

    def _look(self, main: str) -> dict[str, TokenShard]:
        """Return the tables by name, the main one first; one of other cells is left out and told."""
        found = {main: look_at_shard(self.path / f"{main}{TABLE}")}
        for file in sorted(self.path.glob(f"*{TABLE}")):
            name = file.name.removesuffix(TABLE)
            shard = found.get(name) or look_at_shard(file)
            if shard.n_cells == found[main].n_cells:
                found[name] = shard
            else:
                self.note(f"{file.name} is left out: {shard.n_cells} cells, the main table has {found[main].n_cells}")
        return found

    def _read_obs(self) -> pa.Table:
        shard = next(iter(self._tables.values()))
        columns = shard_labels(shard, note=self.note, file=self.path.name)
        cells = columns.pop(ID, None)
        if cells is None or cells.null_count or not pa.types.is_integer(cells.type):
            if cells is not None:
                columns[ID] = cells
            cells = row_names(shard.n_cells)
            self.note(f"{shard.path.name} numbers no cells: they are called by their row")
        else:
            cells = cells.cast(pa.string())
            self.note(f"a bank names no cells: they are called by the number in the column {ID}")
        return cell_table(cells, self._studies() | columns, note=self.note, file=self.path.name)

    def _studies(self) -> dict[str, Any]:
        """Return the study of each cell, where the bank says it."""
        path = self.path / STUDIES
        studies = _read_json(path).get("study_ids") if path.is_file() else None
        if studies is None:
            return {}
        if not isinstance(studies, list) or len(studies) not in (1, self.n_cells):
            what = f"{len(studies)} entries" if isinstance(studies, list | dict) else repr(studies)
            self.note(f"{STUDIES} is not used: study_ids has {what}, the bank {self.n_cells} cells")
            return {}
        texts = [None if study is None else str(study) for study in studies] * (
            self.n_cells if len(studies) == 1 else 1
        )
        return {"study_id": pa.array(texts[: self.n_cells], pa.string()).dictionary_encode()}


def _read_json(path: Path) -> Any:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FormatError(f"{path}: missing; an scBank has it beside {VOCABULARY} and its tables.") from None
    except (OSError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0]
        raise FormatError(f"{path}: not JSON ({first_line}); it is truncated or damaged, get it again.") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(found).__name__}.")
    return found
