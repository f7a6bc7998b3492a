"""Vocabularies as plain maps of name to token, as scGPT and MosaicFM keep them (floor 2). Pure.

Both are one JSON object, special tokens among the genes. scGPT's is keyed by symbols, MosaicFM's by the ids of the
vocabulary, which since its version 2 are Ensembl ids. Readers look a name up and do not ask for an order, so the lines
stand in ascending order of token.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cellmill.errors import VocabularyError, nearest

__all__ = ["FORMS", "keys_of", "token_map"]

FORMS = ("cellmill", "scgpt", "mosaicfm")
_NONE_MEANT: Mapping[str, str] = MappingProxyType({})
_WRITTEN: Mapping[str, tuple[int, str]] = {"scgpt": (2, ""), "mosaicfm": (4, "\n")}  # indent and end of published files


def keys_of(
    ids: Sequence[str], symbols: Sequence[str], form: str, *, meant: Mapping[str, str] = _NONE_MEANT
) -> list[str]:
    """Return the names under which genes stand in a plain map.

    Where several genes share a symbol, the one that it means (`meant`: symbol to id) keeps it, and the others are
    called `SYMBOL_ID`, as in CELLxGENE: no gene may take the token of another. So is a gene whose symbol is another
    one's id, or is written like a special token.

    Examples
    --------
    >>> keys_of(["ENSG1", "ENSG2", "ENSG3"], ["A", "B", "A"], "scgpt", meant={"A": "ENSG3"})
    ['A_ENSG1', 'B', 'A']
    """
    if form != "scgpt":
        return list(ids)
    uses = Counter(symbols)
    others = {gene_id for gene_id, symbol in zip(ids, symbols, strict=True) if gene_id != symbol}
    return [
        symbol
        if (uses[symbol] == 1 or meant.get(symbol) == gene_id) and symbol not in others and not _is_special(symbol)
        else _told_apart(symbol, gene_id)
        for symbol, gene_id in zip(symbols, ids, strict=True)
    ]


def _is_special(name: str) -> bool:
    return name.startswith("<") and name.endswith(">")


def _told_apart(symbol: str, gene_id: str) -> str:
    return gene_id if symbol == gene_id else f"{symbol}_{gene_id}"


def token_map(
    ids: Sequence[str],
    symbols: Sequence[str],
    tokens: Sequence[int],
    specials: Mapping[str, int],
    *,
    form: str,
    meant: Mapping[str, str] = _NONE_MEANT,
) -> str:
    """Return the JSON text of a vocabulary as `form` ("scgpt" or "mosaicfm") keeps it.

    Raises
    ------
    VocabularyError
        For another form, and when two genes, or a gene and a special token, would have one name.
    """
    if form not in _WRITTEN:
        raise VocabularyError(
            f"there is no form {form!r} of a vocabulary's JSON; known are {', '.join(FORMS)}.{nearest(form, FORMS)}"
        )
    keys = keys_of(ids, symbols, form, meant=meant)
    whole = dict(zip([*keys, *specials], [*tokens, *specials.values()], strict=True))
    if len(whole) < len(keys) + len(specials):
        twice = next(name for name, uses in Counter([*keys, *specials]).items() if uses > 1)
        raise VocabularyError(
            f"two tokens would both be called {twice!r} in the JSON of {form}: its names must be unique. Write it as "
            "mosaicfm, by ids, or as cellmill, which keeps ids and symbols"
        )
    indent, end = _WRITTEN[form]
    return json.dumps(dict(sorted(whole.items(), key=lambda pair: pair[1])), indent=indent) + end
