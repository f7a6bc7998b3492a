"""The card of a store (floor 7): what is in it and where it came from, on one page that a person reads gladly.

Knows stores, their reports, and statistics; must not know models or runs. The module itself can be called:
`cellmill.card(store, path)` is `cellmill.card.write_card(store, path)`.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from cellmill.card.collect import collect_card
from cellmill.card.content import CardData, CardFiles, Composition, Spread
from cellmill.card.write import write_card

__all__ = ["CardData", "CardFiles", "Composition", "Spread", "collect_card", "write_card"]


class _CallableModule(types.ModuleType):
    """A module whose call is `write_card`."""

    def __call__(self, *args: Any, **kwargs: Any) -> CardFiles:
        return write_card(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
