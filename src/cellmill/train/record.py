"""The record of a run (floor 7): what the run folder holds, and how it is read again.

Knows files and JSON; must not know torch or how training goes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from cellmill.errors import FormatError, NotFoundError
from cellmill.storage import write_atomic

__all__ = ["HISTORY_COLUMNS", "RunRecord", "read_history", "write_history"]

RECORD_FORMAT = 1
HISTORY_COLUMNS = (
    "epoch",
    "elbo_train",
    "reconstruction_loss_train",
    "elbo_validation",
    "reconstruction_loss_validation",
    "kl_weight",
    "seconds",
)
Row = dict[str, float | int | None]


@dataclass(frozen=True)
class RunRecord:
    """What a run was, and what came of it. Kept as `run.json`.

    Attributes
    ----------
    folder : Path
    name : str
    finished : bool
    config : dict
        The resolved configuration; `run.yaml` holds the same.
    hashes : dict
        plan, validation, vocabulary, genes, and after training model; stores: {path: digest}.
    versions : dict of str to str
        python, cellmill, torch, lightning, scvi-tools, numpy.
    n_cells, n_draws, n_genes : int
        Unique training cells, cells presented per epoch, genes of the model.
    n_validation : int
        Validation cells.
    epochs : int
        Epochs trained so far.
    metrics : dict of str to float
        The last value of each column of the history.
    composition : dict
        {column: {label: training cells}}.
    plan : dict
        The plan's own account: components, shares, warnings.
    library : dict
        The library prior: mean and variance of log(total counts over the model's genes), per batch.
    device : str
    seconds : float
        Spent in training, over all sittings.
    peak_memory_bytes : int
        Highest resident memory of the process that finished, with everything else that it did.
    notes : list of str
        What a reader should know.
    evaluation : dict
        What the evaluators that were handed in returned, by name.
    """

    folder: Path
    name: str
    finished: bool
    config: dict[str, Any]
    hashes: dict[str, Any]
    versions: dict[str, str]
    n_cells: int
    n_draws: int
    n_genes: int
    n_validation: int
    epochs: int
    metrics: dict[str, float]
    composition: dict[str, dict[str, int]]
    plan: dict[str, Any]
    library: dict[str, Any]
    device: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    notes: tuple[str, ...] = ()
    evaluation: dict[str, Any] | None = None

    @property
    def model_folder(self) -> Path:
        """Where the trained model lies."""
        return self.folder / "model"

    def history(self) -> list[Row]:
        """Return the rows of history.csv; a value that was not measured is None."""
        return read_history(self.folder / "history.csv")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, without the folder, which may be moved."""
        content = asdict(self)
        del content["folder"]
        return {"format": RECORD_FORMAT, **content, "notes": list(self.notes)}

    def write(self) -> None:
        """Write run.json, atomically."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        write_atomic(self.folder / "run.json", (text + "\n").encode())

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Return the record in a run folder.

        Raises
        ------
        NotFoundError
            When there is no run.json.
        FormatError
            When it is damaged, or of another format.
        """
        path = Path(folder) / "run.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{folder}: no run.json here, so not a run folder; cellmill train makes one") from None
        except ValueError as error:
            raise FormatError(f"{path}: damaged: {error}. Remove the folder and train again.") from None
        if not isinstance(content, dict) or content.pop("format", None) != RECORD_FORMAT:
            raise FormatError(f"{path}: not a record of format {RECORD_FORMAT}; read it with the cellmill it is of")
        try:
            return cls(folder=Path(folder), **{**content, "notes": tuple(content["notes"])})
        except (KeyError, TypeError) as error:
            raise FormatError(f"{path}: damaged: {error}. Remove the folder and train again.") from None


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write run.yaml, atomically: the resolved configuration as a run file that can be given to training again."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
    write_atomic(folder / "run.yaml", text.encode())


def write_history(path: Path, rows: Sequence[Mapping[str, float | int | None]]) -> None:
    """Write one line per epoch, atomically; floats in full, so that reading gives the same numbers."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HISTORY_COLUMNS)
    for row in rows:
        writer.writerow(["" if row.get(name) is None else repr(row[name]) for name in HISTORY_COLUMNS])
    write_atomic(path, buffer.getvalue().encode())


def read_history(path: Path) -> list[Row]:
    """Return the rows that `write_history` wrote.

    Raises
    ------
    NotFoundError
        When there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file; a run writes it after its first epoch") from None
    rows: list[Row] = []
    for line in csv.DictReader(io.StringIO(text)):
        row: Row = {name: float(value) if value else None for name, value in line.items()}
        row["epoch"] = int(line["epoch"])
        rows.append(row)
    return rows
