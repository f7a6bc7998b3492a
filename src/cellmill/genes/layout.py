"""Where the special tokens of a vocabulary stand, and how it is padded (floor 2).

Knows the habits of model families. Must not know which genes there are. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cellmill.errors import VocabularyError, nearest

__all__ = ["LAYOUTS", "Layout", "arranged", "is_padding", "layout_named", "padding"]

_PADDING = re.compile(r"<junk\d+>")


@dataclass(frozen=True)
class Layout:
    """How a model family numbers its tokens.

    Attributes
    ----------
    specials : tuple of str
        Tokens that are no genes, in order.
    specials_first : bool
        Whether they come before the genes or after them.
    multiple : int
        The number of tokens is filled up to a multiple of this with `<junk0>`, `<junk1>`, ...; 1 for no padding.
    """

    name: str
    specials: tuple[str, ...]
    specials_first: bool
    multiple: int = 1


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("cellmill", ("<pad>", "<cls>", "<eoc>", "<mask>"), specials_first=True),
            Layout("scgpt", ("<pad>", "<cls>", "<eoc>"), specials_first=False),
            Layout("mosaicfm", ("<pad>", "<cls>", "<eoc>"), specials_first=True, multiple=64),
        )
    }
)


def layout_named(name: str) -> Layout:
    """Return a layout by its name.

    Raises
    ------
    VocabularyError
        When there is none of this name.
    """
    if name not in LAYOUTS:
        raise VocabularyError(f"there is no layout {name!r}; known are {', '.join(LAYOUTS)}.{nearest(name, LAYOUTS)}")
    return LAYOUTS[name]


def is_padding(special: str) -> bool:
    """Whether a special token only fills the vocabulary up, as `<junk0>` does."""
    return _PADDING.fullmatch(special) is not None


def arranged(n_genes: int, layout: Layout, *, multiple: int | None = None) -> tuple[list[int], dict[str, int]]:
    """Return the tokens of the genes, in order, and the special tokens with those of the padding.

    Examples
    --------
    >>> arranged(2, LAYOUTS["scgpt"])
    ([0, 1], {'<pad>': 2, '<cls>': 3, '<eoc>': 4})
    """
    n_specials = len(layout.specials)
    first_gene, first_special = (n_specials, 0) if layout.specials_first else (0, n_genes)
    specials = {name: first_special + i for i, name in enumerate(layout.specials)}
    specials |= padding(n_genes + n_specials, layout.multiple if multiple is None else multiple)
    return list(range(first_gene, first_gene + n_genes)), specials


def padding(size: int, multiple: int, *, taken: Iterable[str] = ()) -> dict[str, int]:
    """Return the tokens that fill `size` tokens up to a multiple, named after the first number that is not taken.

    Raises
    ------
    VocabularyError
        When `multiple` is below 1.

    Examples
    --------
    >>> padding(6, 4)
    {'<junk0>': 6, '<junk1>': 7}
    """
    if multiple < 1:
        raise VocabularyError(f"a vocabulary is padded to a multiple of a whole number from 1 on, not of {multiple}")
    used = [int(name[5:-1]) for name in taken if is_padding(name)]
    first = max(used, default=-1) + 1
    return {f"<junk{first + i}>": size + i for i in range(-size % multiple)}
