"""A frozen, hashed list of genes with their tokens (floor 2).

Knows ids, symbols, tokens and special tokens. Must not know of annotation rules, files of counts or cells.
"""

from __future__ import annotations

import gzip
import json
import operator
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import NotFoundError, VocabularyError, nearest
from cellmill.genes.layout import arranged, is_padding, layout_named, padding
from cellmill.genes.resolve import recognise_species, resolve
from cellmill.genes.table import SPECIES, GeneTable
from cellmill.genes.token_map import FORMS, token_map

__all__ = ["DEFAULT_SPECIALS", "Vocabulary"]

FORMAT = "cellmill-vocabulary/1"
GZIP_MAGIC = b"\x1f\x8b"
GZIP_LEVEL = 6  # level 9 takes seven times as long (0.29 s for 36,000 genes) for 4 % less
LARGEST_TOKEN = int(np.iinfo(np.int64).max)
DEFAULT_SPECIALS: Mapping[str, int] = MappingProxyType({"<pad>": 0, "<cls>": 1, "<eoc>": 2, "<mask>": 3})

_KINDS: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "ids": (list, tuple),
        "tokens": (list, tuple),
        "specials": Mapping,
        "symbols": (list, tuple, type(None)),
        "name": (str, type(None)),
        "hash": str,
    }
)

Int64 = npt.NDArray[np.int64]


class Vocabulary:
    """Genes in a fixed order, each with an integer token; immutable.

    Parameters
    ----------
    ids : sequence of str
        Gene ids, each once.
    tokens : sequence of int, optional
        Token of each gene; by default the smallest whole numbers that no special token has, in order.
    symbols : sequence of str, optional
        Symbol of each gene; by default the ids. Symbols are for people: they are not part of the hash.
    specials : mapping of str to int, optional
        Tokens that are no genes, such as ``<pad>``.
    name : str, optional
        What to call it in messages; not part of the hash.

    Raises
    ------
    VocabularyError
        For ids or tokens that are given twice, are empty or negative, for tokens that are no whole numbers, or for
        lengths that differ.

    Examples
    --------
    >>> vocabulary = Vocabulary(["ENSG1", "ENSG2"], specials={"<pad>": 0})
    >>> vocabulary.tokens.tolist(), vocabulary.index_of(["ENSG2", "ENSG9"]).tolist()
    ([1, 2], [1, -1])
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        tokens: Sequence[int] | None = None,
        symbols: Sequence[str] | None = None,
        specials: Mapping[str, int] = MappingProxyType({}),
        name: str = "",
    ) -> None:
        where = f"vocabulary {name!r}" if name else "this vocabulary"
        self._ids = _texts(ids, f"{where}: the gene id")
        self._symbols = self._ids if symbols is None else _texts(symbols, f"{where}: the symbol")
        self._specials = MappingProxyType(_specials(specials, where))
        self._name = name
        free = _free_tokens(len(self._ids), self._specials.values()) if tokens is None else tokens
        self._tokens: Int64 = np.array(_tokens(free, f"{where}: the token"), dtype=np.int64)
        self._tokens.setflags(write=False)
        self._check(where)

    def _check(self, where: str) -> None:
        for what, found in (("symbols", self._symbols), ("tokens", self._tokens)):
            if len(found) != len(self._ids):
                raise VocabularyError(f"{where} has {len(self._ids):,} gene ids but {len(found):,} {what}")
        if "" in self._ids:
            raise VocabularyError(f"{where}: the gene id at position {self._ids.index(''):,} is empty")
        names = [*self._ids, *self._specials]
        _refuse_doubles(names, f"{where}: the gene id or special token")
        every_token = [*self._tokens.tolist(), *self._specials.values()]
        _refuse_doubles(every_token, f"{where}: the token")

    @classmethod
    def load(cls, name: str | Path) -> Vocabulary:
        """Return a shipped vocabulary (``human``, ``mouse``) or read one from a JSON file.

        The shipped ones hold every gene of the species' table in ascending order of id, after the special tokens
        ``<pad>`` 0, ``<cls>`` 1, ``<eoc>`` 2 and ``<mask>`` 3.

        Raises
        ------
        NotFoundError
            When it is neither a shipped name nor a file.
        VocabularyError
            When the file is no vocabulary.

        Examples
        --------
        >>> "ENSG00000141510" in Vocabulary.load("human")
        True
        """
        if str(name) in SPECIES:
            return _shipped(str(name))
        return cls.from_json(name)

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> Vocabulary:
        """Read a vocabulary that `to_json` wrote, or a plain map of gene to token such as scGPT's and MosaicFM's.

        Parameters
        ----------
        source : path or mapping
            A JSON file, or what such a file holds. In a plain map, names in angle brackets are special tokens, and the
            genes are taken in ascending order of token.

        Raises
        ------
        NotFoundError, VocabularyError

        Examples
        --------
        >>> Vocabulary.from_json({"TP53": 2, "CD3E": 1, "<pad>": 0}).ids
        ('CD3E', 'TP53')
        """
        where, content = ("the given mapping", source) if isinstance(source, Mapping) else _read_json(Path(source))
        name = "" if isinstance(source, Mapping) else Path(source).stem
        if content.get("format") == FORMAT:
            return cls._from_own(content, where, name)
        return cls._from_plain(content, where, name)

    @classmethod
    def _from_own(cls, content: Mapping[str, Any], where: str, name: str) -> Vocabulary:
        missing = [key for key in ("ids", "tokens", "specials") if key not in content]
        if missing:
            raise VocabularyError(f"{where} says it is {FORMAT} but has no {missing[0]!r}")
        for key, kind in _KINDS.items():
            if key in content and not isinstance(content[key], kind):
                raise VocabularyError(f"{where}: {key!r} is {content[key]!r:.40}, which {FORMAT} does not allow there")
        vocabulary = cls(
            content["ids"],
            tokens=content["tokens"],
            symbols=content.get("symbols"),
            specials=content["specials"],
            name=str(content.get("name") or name),
        )
        said = content.get("hash", vocabulary.hash)
        if said != vocabulary.hash:
            raise VocabularyError(
                f"{where}: its hash is given as {said}, but its genes and tokens give {vocabulary.hash}. It was "
                "changed after it was written; take the original, or remove the key 'hash' if the change is meant."
            )
        return vocabulary

    @classmethod
    def _from_plain(cls, content: Mapping[str, Any], where: str, name: str) -> Vocabulary:
        for key, token in content.items():
            if isinstance(token, bool) or not isinstance(token, int):
                raise VocabularyError(
                    f"{where}: {key!r} has the value {token!r:.40}. Expected a map of gene to token (whole numbers), "
                    f"or a file with the key 'format': {FORMAT!r}"
                )
            _token(token, f"{where}: the token of {key!r}")
        special = {key: token for key, token in content.items() if key.startswith("<") and key.endswith(">")}
        genes = sorted((token, key) for key, token in content.items() if key not in special)
        return cls([key for _, key in genes], tokens=[token for token, _ in genes], specials=special, name=name)

    @property
    def name(self) -> str:
        """What to call it; may be empty."""
        return self._name

    @property
    def ids(self) -> tuple[str, ...]:
        """Gene ids in order."""
        return self._ids

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbol of each gene."""
        return self._symbols

    @property
    def tokens(self) -> Int64:
        """Token of each gene, shape (n,), int64, read-only."""
        return self._tokens

    @property
    def specials(self) -> Mapping[str, int]:
        """Tokens that are no genes."""
        return self._specials

    @property
    def n_tokens(self) -> int:
        """Rows that an embedding of these tokens needs: one more than the largest token."""
        return max([*self._tokens.tolist(), *self._specials.values()], default=-1) + 1

    @property
    def n_padding(self) -> int:
        """How many of the special tokens only fill up, as `<junk0>` does."""
        return sum(map(is_padding, self._specials))

    @cached_property
    def hash(self) -> str:
        """32 hex digits: xxh3-128 of the canonical JSON of ids, tokens and specials."""
        content = {"ids": self._ids, "tokens": self._tokens.tolist(), "specials": dict(self._specials)}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return xxhash.xxh3_128_hexdigest(text.encode())

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {gene_id: position for position, gene_id in enumerate(self._ids)}

    def index_of(self, ids: Iterable[str]) -> Int64:
        """Return the position of each id, int64, -1 for those that are not in the vocabulary."""
        positions = self._positions
        return np.array([positions.get(gene_id, -1) for gene_id in ids], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; `from_json` reads it back."""
        return {
            "format": FORMAT,
            "name": self._name,
            "hash": self.hash,
            "specials": dict(self._specials),
            "ids": list(self._ids),
            "tokens": self._tokens.tolist(),
            "symbols": None if self._symbols == self._ids else list(self._symbols),
        }

    def to_json(self, path: str | Path, *, form: str = "cellmill") -> None:
        """Write the vocabulary to a JSON file, by temporary name and rename; compressed where the name ends in .gz.

        Parameters
        ----------
        path
            The file; one that is there is replaced.
        form
            "cellmill" (ids, symbols, tokens, special tokens, hash), or a plain map of name to token as scGPT ("scgpt",
            keyed by symbols) and MosaicFM ("mosaicfm", keyed by ids) read it. `from_json` reads all three.

        Raises
        ------
        VocabularyError
            For another form, and when the names of a plain map would not be unique.
        """
        target = Path(path)
        if form == FORMS[0]:
            text = _lines_of(self.to_dict())
        else:
            meant = self._meant_by_shared_symbols() if form == "scgpt" else {}
            tokens = self._tokens.tolist()
            text = token_map(self._ids, self._symbols, tokens, self._specials, form=form, meant=meant)
        data = text.encode()
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            # no time in the header: the same vocabulary gives the same bytes
            part.write_bytes(gzip.compress(data, GZIP_LEVEL, mtime=0) if target.suffix == ".gz" else data)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _meant_by_shared_symbols(self) -> dict[str, str]:
        """Which gene each symbol means that several genes bear; without those for which that is not decided."""
        shared = [symbol for symbol, uses in Counter(self._symbols).items() if uses > 1]
        species = recognise_species(self._ids, None) if shared else None
        if species is None:
            return {}
        table = GeneTable.load(species)
        # one by one: together they could look like the symbols of an old reference
        found = {symbol: resolve([symbol], None, table).ids[0] for symbol in shared}
        return {symbol: gene_id for symbol, gene_id in found.items() if gene_id is not None}

    # ---- vocabularies made of this one ------------------------------------------------------------------------

    def laid_out(self, layout: str, *, pad_to: int | None = None) -> Vocabulary:
        """Return a vocabulary of the same genes in the same order, numbered as a model family does.

        Parameters
        ----------
        layout
            "cellmill": `<pad>`, `<cls>`, `<eoc>`, `<mask>`, then the genes. "scgpt": the genes from 0 on, then `<pad>`,
            `<cls>`, `<eoc>`. "mosaicfm": `<pad>`, `<cls>`, `<eoc>`, the genes, then `<junk0>`, `<junk1>`, ... up to a
            multiple of 64.
        pad_to
            Another multiple to fill up to; 1 for none.

        Raises
        ------
        VocabularyError
            For another layout, or a multiple below 1.

        Examples
        --------
        >>> Vocabulary(["g", "h"]).laid_out("mosaicfm", pad_to=4).specials["<junk0>"]
        5
        """
        tokens, specials = arranged(len(self), layout_named(layout), multiple=pad_to)
        return Vocabulary(self._ids, tokens=tokens, symbols=self._symbols, specials=specials, name=self._name)

    def padded(self, multiple: int) -> Vocabulary:
        """Return this vocabulary with `<junk...>` tokens at its end, so that a multiple of tokens are numbered.

        Examples
        --------
        >>> dict(Vocabulary(["a", "b", "c"]).padded(4).specials)
        {'<junk0>': 3}
        """
        specials = {**self._specials, **padding(self.n_tokens, multiple, taken=self._specials)}
        return self._with(self._ids, self._tokens, self._symbols, specials)

    def restricted(self, ids: Iterable[str]) -> Vocabulary:
        """Return the genes that are among `ids`, each with the token that it has; special tokens stay.

        Examples
        --------
        >>> Vocabulary(["a", "b", "c"]).restricted(["c", "a", "x"]).tokens.tolist()
        [0, 2]
        """
        wanted = set(ids)
        kept = [i for i, gene_id in enumerate(self._ids) if gene_id in wanted]
        return self._with(
            [self._ids[i] for i in kept], self._tokens[kept], [self._symbols[i] for i in kept], self._specials
        )

    def extended(self, ids: Sequence[str], *, symbols: Sequence[str] | None = None) -> Vocabulary:
        """Return this vocabulary with further genes, which get the tokens after its largest; all others stay.

        Genes that it has already are left as they are, and of ids given twice the first counts.

        Examples
        --------
        >>> Vocabulary(["a", "b"], specials={"<pad>": 9}).extended(["b", "c"]).tokens.tolist()
        [0, 1, 10]
        """
        given = _texts(ids, "the gene id")
        names = given if symbols is None else _texts(symbols, "the symbol")
        if len(names) != len(given):
            raise VocabularyError(f"{len(given):,} gene ids but {len(names):,} symbols are given")
        new: dict[str, str] = {}
        for gene_id, symbol in zip(given, names, strict=True):
            if gene_id not in self._positions:
                new.setdefault(gene_id, symbol)
        tokens = [*self._tokens.tolist(), *range(self.n_tokens, self.n_tokens + len(new))]
        return self._with([*self._ids, *new], tokens, [*self._symbols, *new.values()], self._specials)

    def _with(
        self, ids: Sequence[str], tokens: Sequence[int] | Int64, symbols: Sequence[str], specials: Mapping[str, int]
    ) -> Vocabulary:
        return Vocabulary(ids, tokens=list(tokens), symbols=symbols, specials=specials, name=self._name)

    def __reduce__(self) -> tuple[Callable[..., Vocabulary], tuple[Any, ...]]:
        return _rebuild, (self._ids, self._tokens.tolist(), self._symbols, dict(self._specials), self._name)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, gene_id: object) -> bool:
        return gene_id in self._positions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def __repr__(self) -> str:
        name = f"{self._name!r}, " if self._name else ""
        return f"Vocabulary({name}{len(self):,} genes, {len(self._specials)} specials, hash {self.hash[:12]})"


def _rebuild(
    ids: Sequence[str], tokens: Sequence[int], symbols: Sequence[str], specials: Mapping[str, int], name: str
) -> Vocabulary:
    return Vocabulary(ids, tokens=tokens, symbols=symbols, specials=specials, name=name)


@lru_cache(maxsize=len(SPECIES))
def _shipped(species: str) -> Vocabulary:
    table = GeneTable.load(species)
    return Vocabulary(table.ids, symbols=table.symbols, specials=DEFAULT_SPECIALS, name=species)


def _texts(values: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the texts of a sequence, proven to be texts that UTF-8 can hold."""
    if isinstance(values, str | bytes | Mapping):
        raise VocabularyError(f"{what}s are given as {type(values).__name__}; expected a list of texts")
    texts = tuple(values)
    for position, value in enumerate(texts):
        if not isinstance(value, str):
            raise VocabularyError(f"{what} at position {position:,} is no text but {value!r:.40}")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as problem:
        raise VocabularyError(f"{what}s hold characters that UTF-8 does not have ({problem.reason})") from None
    return texts


def _specials(specials: Mapping[str, int], where: str) -> dict[str, int]:
    if not isinstance(specials, Mapping):
        raise VocabularyError(f"{where}: the special tokens are {specials!r:.40}; expected a map of name to token")
    names = _texts(list(specials), f"{where}: the special token")
    return dict(zip(names, _tokens(specials.values(), f"{where}: the special token"), strict=True))


def _tokens(values: Iterable[int], what: str) -> list[int]:
    if isinstance(values, str | bytes | Mapping):
        raise VocabularyError(f"{what}s are given as {type(values).__name__}; expected a list of whole numbers")
    return [_token(value, f"{what} at position {position:,}") for position, value in enumerate(values)]


def _token(value: object, what: str) -> int:
    """Return a token as int; nothing is rounded, parsed or wrapped."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise VocabularyError(f"{what} is {value!r:.40}; expected a whole number")
    if number > LARGEST_TOKEN:
        raise VocabularyError(f"{what} is too large; the largest token is {LARGEST_TOKEN}")
    if number < 0:
        raise VocabularyError(f"{what} is negative; tokens count from 0")
    return number


def _free_tokens(count: int, taken: Iterable[int]) -> list[int]:
    avoid = set(taken)
    candidates = (token for token in range(count + len(avoid)) if token not in avoid)
    return [token for token, _ in zip(candidates, range(count), strict=False)]


def _refuse_doubles(values: Sequence[str | int], what: str) -> None:
    if len(set(values)) == len(values):
        return
    first: dict[str | int, int] = {}
    for position, value in enumerate(values):
        if value in first:
            raise VocabularyError(
                f"{what} {value!r} is given twice, at positions {first[value]:,} and {position:,}. Each must be unique."
            )
        first[value] = position


def _read_json(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == GZIP_MAGIC else data).decode()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"There is no vocabulary {str(path)!r}: it is neither a file nor one of {', '.join(SPECIES)}."
            f"{nearest(str(path), SPECIES)}"
        ) from None
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as problem:
        raise VocabularyError(f"{path} cannot be read as a vocabulary: expected a JSON file ({problem})") from problem
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _unique_keys(pairs, path))
    except VocabularyError:
        raise
    except ValueError as problem:  # no JSON, or a number of thousands of digits
        raise VocabularyError(f"{path} is no JSON file: {problem}") from problem
    except RecursionError:
        raise VocabularyError(f"{path} is no vocabulary: its JSON is nested too deeply") from None
    if not isinstance(content, dict):
        raise VocabularyError(f"{path} holds a JSON {type(content).__name__}; expected a map of gene to token")
    return str(path), content


def _unique_keys(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    _refuse_doubles([key for key, _ in pairs], f"{path}: the key")
    return dict(pairs)


def _lines_of(content: Mapping[str, Any]) -> str:
    """Return ``json.dumps(content, indent=0)`` of lists and objects, which would take an encoder in Python."""

    def text_of(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False, separators=(",\n", ": "))
        return f"{text[0]}\n{text[1:-1]}\n{text[-1]}" if isinstance(value, list | dict) and value else text

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {text_of(value)}" for key, value in content.items()) + "\n}"
