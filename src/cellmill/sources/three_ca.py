"""Studies of the Curated Cancer Cell Atlas (3CA): Exp_data_UMIcounts.mtx, Genes.txt, Cells.csv (floor 3, sources).

Knows that layout: cells and their labels in one table, by the order of the matrix, and samples in another.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import FormatError
from cellmill.sources.mex import MexFiles, MexSource
from cellmill.sources.mex_names import MATRIX_3CA, group_3ca
from cellmill.sources.side_table import cell_table, read_cells, read_labels, typed_column

__all__ = ["ThreeCaSource", "find_3ca", "study_name"]

CELL_COLUMNS = ("cell_name", "cell", "cell_id", "barcode")
SAMPLE = "sample"


def find_3ca(path: Path) -> list[MexFiles]:
    """Return the inputs of a folder in the layout of 3CA, or the one whose matrix `path` is; none where it is another.

    Notes
    -----
    `labels` of each are the table of samples.
    """
    if not path.is_dir() and not MATRIX_3CA.fullmatch(path.name):
        return []  # without a look at the folder, which may hold thousands of other inputs
    folder = path if path.is_dir() else path.parent
    groups = group_3ca(item.name for item in folder.iterdir() if item.is_file())
    return [
        MexFiles(
            folder / one.matrix,
            folder / str(one.barcodes),
            folder / str(one.features),
            folder / one.labels if one.labels else None,
        )
        for one in groups
        if path.is_dir() or one.matrix == path.name
    ]


def study_name(matrix: Path) -> str:
    """Return the name of a study: that of its folder, with what tells matrices of one folder apart."""
    folder = matrix.absolute().parent.name
    variant = re.sub(r"(?i)^exp_data_?(umi_?counts)?|\.mtx(\.gz)?$", "", matrix.name).strip("_")
    return f"{folder}_{variant}" if variant else folder


class ThreeCaSource(MexSource):
    """One study of 3CA; its only matrix is "matrix". Labels are the columns of Cells.csv and of the table of samples.

    Raises
    ------
    FormatError
        A file is missing, truncated, or they contradict each other; or the matrix is in transcripts per million.
    """

    kind = "3ca"

    @property
    def name(self) -> str:
        """Name of the study: that of its folder, with what tells matrices of one folder apart."""
        return study_name(self._files.matrix)

    def _find(self, path: Path) -> MexFiles:
        found = find_3ca(path)
        if len(found) != 1:
            names = ", ".join(item.matrix.name for item in found) or "none that has both"
            raise FormatError(
                f"{path}: expected one matrix Exp_data_UMIcounts.mtx with Cells.csv and Genes.txt, found {names}."
                + (" Name the matrix files themselves as inputs." if found else "")
            )
        if "tpm" in found[0].matrix.name.casefold():
            raise FormatError(
                f"{found[0].matrix}: transcripts per million, by its name, are no counts. Get the study's "
                "Exp_data_UMIcounts.mtx; where there is none, leave the study out."
            )
        return found[0]

    def _read_barcodes(self) -> list[str]:
        names, self._cells = read_cells(self._files.barcodes, CELL_COLUMNS)
        return names

    def _read_obs(self) -> pa.Table:
        columns = self._labels_of_cells()
        columns |= self._of_samples(columns)
        return cell_table(self._barcodes, columns, note=self.note, file=self._files.barcodes.name)

    def _of_samples(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Return the columns of the table of samples for each cell, those that the cells have themselves aside."""
        if self._files.labels is None or self._cells is None or SAMPLE not in self._cells.column_names:
            return {}
        samples = read_labels(self._files.labels)
        if SAMPLE not in samples.column_names:
            return {}
        keys = samples.column(SAMPLE).combine_chunks()
        if len(keys.unique()) != len(keys):
            self.note(f"{self._files.labels.name}: a sample stands in more than one row; its columns are left out")
            return {}
        rows = pc.index_in(self._cells.column(SAMPLE), value_set=keys)
        if rows.null_count:
            self.note(f"{self._files.labels.name}: {rows.null_count} cells are of samples that it does not list")
        return {
            name: typed_column(samples.column(name).take(rows))
            for name in samples.column_names
            if name.strip() and name != SAMPLE and name not in columns
        }
