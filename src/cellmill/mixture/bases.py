"""How a mixture differs from another one (floor 4, mixture): components added, in place of others, or alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellmill.errors import ConfigError, MixtureError
from cellmill.mixture.config import Component
from cellmill.mixture.drafts import Draft, smallest
from cellmill.mixture.quotas import largest_remainder
from cellmill.mixture.select import choice_keys
from cellmill.store import Store

__all__ = ["onto_base", "replace_cells"]


def onto_base(base: Sequence[Component], own: Sequence[Component]) -> tuple[Component, ...]:
    """Return the components of a mixture that differs from a base by its own ones.

    With shares (`proportion`) the base keeps what the own components leave of each batch, its parts in their ratios.
    Where only the own ones say how many cells (`choose`), the base takes all of its cells.

    Raises
    ------
    ConfigError
        When `only` stands beside another op, or the own shares leave nothing for the base.
    """
    ops = {component.op for component in own}
    if "only" in ops:
        if len(ops) > 1:
            raise ConfigError("`op: only` leaves the base out, and cannot stand beside components with another op")
        return tuple(own)
    if any(c.proportion is not None for c in own) and all(c.proportion is not None for c in (*base, *own)):
        left = 1 - sum(c.proportion or 0.0 for c in own)
        if left <= 1e-9:
            raise ConfigError("the proportions of the own components leave nothing for the base; `op: only` means that")
        return (*(replace(c, proportion=(c.proportion or 0.0) * left) for c in base), *own)
    plain = all(c.proportion is None and c.repeat is None and c.choose is None for c in base)
    if plain and any(c.choose is not None for c in own):
        base = [replace(c, choose="100%") for c in base]
    return (*base, *own)


def replace_cells(drafts: Sequence[Draft], stores: Sequence[Store], *, seed: int) -> None:
    """Take as many cells from what does not replace as the replacing components bring, from each in proportion.

    Those that go are the last ones of the ladder of `choose`: less of a spike-in leaves a superset.

    Raises
    ------
    MixtureError
        When the replacing components bring as many cells as there are, or more.
    """
    coming = sum(len(draft.cells) for draft in drafts if draft.component.op == "replace")
    staying = [draft for draft in drafts if draft.component.op != "replace"]
    held = [len(draft.cells) for draft in staying]
    if not coming:
        return
    if coming >= sum(held):
        raise MixtureError(
            f"{coming:,} cells are to replace as many of the base, which has {sum(held):,}. "
            "Choose fewer, or use `op: only`"
        )
    for draft, n in zip(staying, largest_remainder([float(n) for n in held], sum(held) - coming), strict=True):
        if n < 1:
            raise MixtureError(f"component {draft.component.name!r} would be replaced whole; leave it out of the base")
        kept = smallest(choice_keys(draft.cells, stores, seed=seed), n)
        draft.story.append(f"{n:,} after {int(np.count_nonzero(~kept)):,} were replaced")
        draft.cells = draft.cells.keep(kept)
