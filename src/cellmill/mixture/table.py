"""A plan as people read it (floor 4, mixture). Pure: rows of numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cellmill.units import count_text

__all__ = ["ClassRow", "PlanRow", "plan_text"]


@dataclass(frozen=True)
class ClassRow:
    """What one class of a balanced component gets.

    Attributes
    ----------
    value : str
    cells : int
    draws : int
        In one pass over the component.
    """

    value: str
    cells: int
    draws: int


@dataclass(frozen=True)
class PlanRow:
    """What one component comes to.

    Attributes
    ----------
    name, split : str
        `split` is "" where the mixture has none.
    cells : int
        Unique cells.
    draws : int
        Cells presented in one epoch.
    effective_epochs : float
        draws / cells.
    share_wanted, share_obtained : float
        Share of the draws that was asked for, and that one epoch holds.
    donors : int or None
        Different values of donor_id (or of the split's column); None where no store has it.
    duplicates_removed : int
        Selected cells, of all splits, with a fingerprint that came before in the mixture.
    excluded : dict of str to int
        Cells removed by each rule of the exclusions.
    most_repeats : float
        Draws of the cell that is drawn most, in one epoch.
    genes_measured : dict of str to float
        For each source of its cells, the share of all genes of the plan's stores that it measured.
    classes : tuple of ClassRow
        Of a balanced component; else empty.
    """

    name: str
    split: str
    cells: int
    draws: int
    effective_epochs: float
    share_wanted: float
    share_obtained: float
    donors: int | None = None
    duplicates_removed: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    most_repeats: float = 1.0
    genes_measured: dict[str, float] = field(default_factory=dict)
    classes: tuple[ClassRow, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "classes": [asdict(one) for one in self.classes]}


def plan_text(
    name: str, kind: str, rows: Sequence[PlanRow], *, n_draws: int, digest: str, warnings: Sequence[str]
) -> str:
    """Return a plan as a printable table, with what it removes and what it warns of."""
    rules = sorted({rule for row in rows for rule in row.excluded})
    head = ["component", "split", "cells", "draws", "epochs", "share wanted", "share obtained", "donors", "duplicates"]
    with_genes = any(row.genes_measured for row in rows)
    head += ["genes measured"] if with_genes else []
    head += [f"excluded by {rule}" for rule in rules]
    body = [
        [
            row.name,
            row.split or "-",
            count_text(row.cells),
            count_text(row.draws),
            f"{row.effective_epochs:.3g}",
            _share_text(row.share_wanted),
            _share_text(row.share_obtained),
            "-" if row.donors is None else count_text(row.donors),
            count_text(row.duplicates_removed),
            *([_genes_text(row.genes_measured)] if with_genes else []),
            *(count_text(row.excluded.get(rule, 0)) for rule in rules),
        ]
        for row in rows
    ]
    total = ["total", "", count_text(sum(r.cells for r in rows)), count_text(n_draws)]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [f"plan {name or '(unnamed)'}: {kind}, {count_text(n_draws)} cells presented per epoch, hash {digest[:12]}"]
    lines += [_line(line, widths) for line in [head, *body]]
    if len(rows) > 1:
        lines.append(_line(total, widths))
    lines += [f"warning: {warning}" for warning in warnings]
    return "\n".join(lines)


def _genes_text(shares: Mapping[str, float]) -> str:
    """The least and the largest share that a source measured, rounded down."""
    if not shares:
        return "-"
    least, most = (int(100 * share) for share in (min(shares.values()), max(shares.values())))
    return f"{least}%" if least == most else f"{least}-{most}%"


def _share_text(share: float) -> str:
    """Two decimals of a percentage; three digits of a tiny one."""
    return f"{share:.2%}" if share >= 0.001 else f"{100 * share:.3g}%"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    placed = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=False))]
    return ("  " + "  ".join(placed)).rstrip()
