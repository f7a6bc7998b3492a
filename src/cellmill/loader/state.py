"""What a saved state is, and when it may be loaded (floor 6, loader). JSON values only; knows no cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cellmill.errors import StateMismatchError
from cellmill.mixture import Order, Plan, UnitPlan

__all__ = ["STATE_FORMAT", "check_state", "identity"]

STATE_FORMAT: Final = 3
# what a state and its loader must have in common; the first that differs is the one to name: a store that was built
# with another vocabulary is another store, and makes another plan
_MEANING: Final = {
    "vocabulary": "the vocabulary of the stores or of the tokens",
    "stores": "the stores",
    "plan": "the cells, their amounts or units",
    "seed": "the seed",
    "order": "the order",
}


def identity(plan: Plan | UnitPlan, seed: int, order: Order, *, of_tokens: str | None = None) -> dict[str, Any]:
    """Return what decides which cell comes where, and what its tokens mean; lists have one hash for each store.

    Parameters
    ----------
    of_tokens
        Hash of the vocabulary whose tokens the recipe makes; it is named where it is not that of the stores.
    """
    own = [store.vocabulary_hash for store in plan.stores]
    return {
        "vocabulary": own if of_tokens is None or of_tokens in own else [*own, of_tokens],
        "stores": [store.digest for store in plan.stores],
        "plan": plan.hash,
        "seed": seed,
        "order": order.to_dict(),
    }


def check_state(state: Any, mine: Mapping[str, Any]) -> None:
    """Raise StateMismatchError unless `state` is one, and of a run with the same `identity`; names old and new."""
    found = state.get("format") if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or found != STATE_FORMAT:
        raise StateMismatchError(f"this is no state of a loader of this version (format {found!r})")
    for name in ("position", "began"):
        if type(state.get(name)) is not int or state[name] < 0:
            raise StateMismatchError(f"this is no state of a loader: {name} is {state.get(name)!r}")
    for key, what in _MEANING.items():
        if state.get(key) != mine[key]:
            raise StateMismatchError(
                f"this state belongs to another run: {what} changed "
                f"({key} was {_said(state.get(key))}, is {_said(mine[key])}). "
                f"Load it into a loader with the old ones, or start anew{_order_hint(key, state.get(key))}"
            )


def _order_hint(key: str, order: Any) -> str:
    """How to write an old blocked order: the window behind the name "blocked" follows from the batch size."""
    if key != "order" or not isinstance(order, Mapping) or order.get("kind") != "blocked":
        return ""
    settings = ", ".join(f"{name}={value}" for name, value in order.items() if name != "kind")
    return f"; the old order is order=cellmill.mixture.Blocked({settings})"


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
