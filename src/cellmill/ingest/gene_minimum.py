"""In how many of the taken cells each gene is detected (floor 4): all of an input read once more, for the plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError
from cellmill.events import emit
from cellmill.genes import Vocabulary
from cellmill.ingest.admission import Admission
from cellmill.ingest.ahead import read_ahead
from cellmill.ingest.audit import Violation
from cellmill.ingest.candidates import Candidate
from cellmill.ingest.cell_table import cell_table, known_facts
from cellmill.ingest.convert import gene_hashes
from cellmill.ingest.filters import FilteredObs
from cellmill.ingest.obs_mapping import map_obs
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.plan import SourcePlan
from cellmill.ingest.refuse import refusal

__all__ = ["count_detected", "often_detected"]

I64 = npt.NDArray[np.int64]


def count_detected(
    candidate: Candidate,
    plan: SourcePlan,
    vocabulary: Vocabulary,
    schema: tuple[tuple[str, str], ...],
    options: BuildOptions,
) -> I64:
    """Return the number of taken cells of an input with a count of each gene, int64, shape (n_vocabulary,).

    Raises
    ------
    NotRawCountsError
        When a value is no raw count.
    """
    source = candidate.source
    obs = map_obs(source, options.obs_map).table
    admission = Admission(
        position_of=plan.target.astype(np.int32),
        hashes=gene_hashes(list(vocabulary.ids)),
        classes=plan.classes,
        filtered=FilteredObs.of(options.filters, cell_table(plan, obs, source.origins(), 0, plan.n_cells), schema),
        allow_rounding=options.allow_rounding,
        known=known_facts(source),
    )
    detected = np.zeros(len(vocabulary), dtype=np.int64)
    violation = None
    with read_ahead(source.stored_blocks(plan.matrix, block_cells=options.block_cells)) as blocks:
        for block in blocks:
            admitted = admission.admit(block)
            if isinstance(admitted, Violation):
                violation = admitted
                break
            detected += admitted.cells.cells_per_gene
            emit(f"counting genes of {plan.path.name}", done=block.stop, total=plan.n_cells, unit="cells")
    if violation is not None:  # told only now, since what is said reads the source, too
        raise refusal(source, plan.matrix, violation, options=options)
    return detected


def often_detected(order: I64, counted: Sequence[I64 | None], *, least: int, needed: bool) -> I64:
    """Return the genes of `order` that are detected in `least` cells or more of all inputs that were counted.

    Raises
    ------
    InputError
        When there is none, but one is `needed`.
    """
    detected = sum((one[order] for one in counted if one is not None), start=np.zeros(len(order), np.int64))
    often = order[detected >= least]
    if needed and len(order) and not len(often):
        raise InputError(
            f"no gene is detected in {least} cells or more of those that are taken (the most is {detected.max()}); "
            "give a smaller number to --min-cells-per-gene (in Python: min_cells_per_gene=)"
        )
    return often
