"""Which obs columns of a stranger's files hold the cell type, the donor and the tissue (demo). Pure.

Knows the names that are usual in the field; compares them without regard to case, spaces, dots, dashes and underscores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

__all__ = ["USUAL_NAMES", "choose_renames", "find_columns"]

# per meaning, the usual names, the surest first
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "cell_type": (
        *("cell_type", "cell_types", "cell_type_name", "cell_ontology_class", "author_cell_type", "cell_label"),
        *("cell_labels", "cell_annotation", "annotation", "annotations", "celltype_annotation", "celltypist"),
        *("predicted_celltype", "cell_identity", "cell_class", "cell_subtype"),
    ),
    "donor_id": (
        *("donor_id", "donor", "donor_name", "patient_id", "patient", "individual", "individual_id", "subject"),
        *("subject_id", "participant", "participant_id", "sample_id", "sample", "sample_name", "orig_ident"),
    ),
    "tissue": ("tissue", "tissue_name", "tissue_general", "tissue_type", "organ", "organ_part"),
}


def find_columns(obs: pa.Schema) -> dict[str, str]:
    """Return for each meaning the column that holds it: {"cell_type": "Celltype"}; nothing for one that no column has.

    Cell types and tissues are text; a donor may also be a whole number.
    """
    folded: dict[str, str] = {}
    for field in obs:
        folded.setdefault(_folded(field.name), field.name)
    found = {}
    for meaning, usual in USUAL_NAMES.items():
        for name in usual:
            column = folded.get(_folded(name))
            if column is not None and _may_hold(obs.field(column).type, meaning):
                found[meaning] = column
                break
    return found


def choose_renames(files: Sequence[pa.Schema]) -> dict[str, str]:
    """Return new names of columns, so that all files call the same thing by the same name.

    A column that a file would then have twice keeps its own name in every file.
    """
    renames: dict[str, str] = {}
    for obs in files:
        for meaning, column in find_columns(obs).items():
            if column != meaning and meaning not in obs.names:
                renames.setdefault(column, meaning)
    return {
        old: new for old, new in renames.items() if not any(_clashes(obs.names, old, new, renames) for obs in files)
    }


def _clashes(columns: Sequence[str], old: str, new: str, renames: Mapping[str, str]) -> bool:
    return old in columns and sum(renames.get(name, name) == new for name in columns) > 1


def _may_hold(kind: pa.DataType, meaning: str) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return True
    return meaning == "donor_id" and bool(pa.types.is_integer(value))


def _folded(name: str) -> str:
    return re.sub(r"[\s._-]+", "", name).casefold()
