"""The mixture (floor 4): which cells a run trains on, in which shares and which order; row ids only.

Knows stores by their obs and uids. Knows no counts, no bytes of cells, no torch: order, quotas, splits and resumption
are tested on a billion imaginary cells.
"""

from __future__ import annotations

from cellmill.mixture.config import Balance, Component, Exclusion, Seeds, Split
from cellmill.mixture.mixture import Mixture
from cellmill.mixture.order import Blocked, Exact, Order, Stored, choose_order
from cellmill.mixture.plan import Plan, PlanRow, plan_cells
from cellmill.mixture.sets import Chunks, Pairs, Sets, Units
from cellmill.mixture.sketch import write_coordinates
from cellmill.mixture.unit_plan import UnitCounts, UnitDraw, UnitPlan, plan_units

__all__ = [
    "Balance",
    "Blocked",
    "Chunks",
    "Component",
    "Exact",
    "Exclusion",
    "Mixture",
    "Order",
    "Pairs",
    "Plan",
    "PlanRow",
    "Seeds",
    "Sets",
    "Split",
    "Stored",
    "UnitCounts",
    "UnitDraw",
    "UnitPlan",
    "Units",
    "choose_order",
    "plan_cells",
    "plan_units",
    "write_coordinates",
]
