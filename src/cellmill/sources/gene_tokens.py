"""Which gene a token stands for: tables and vocabularies that lie with token lists (floor 3, sources).

Knows Tahoe-100M's gene_metadata.parquet and the JSON of names and tokens that scGPT and MosaicFM write. Must not know
the lists themselves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.base import ID_COLUMNS, SYMBOL_COLUMNS, GeneColumns
from cellmill.sources.parquet_file import open_parquet, reading_parquet

__all__ = ["NO_GENE", "UNKNOWN", "TokenTable", "find_token_table", "read_token_table"]

UNKNOWN = -1
NO_GENE = -2
LARGEST_TOKEN = (1 << 24) - 1
TOKEN_COLUMNS = ("token_id", "token", "gene_token", "id")
TABLE_NAMES = ("gene_metadata.parquet", "gene_vocabulary.json", "gene_vocab.json", "vocab.json")
SPECIAL = re.compile(r"<[^<>]*>$")


@dataclass(frozen=True)
class TokenTable:
    """The genes that tokens stand for.

    Attributes
    ----------
    path : Path
        Where it was read.
    genes : GeneColumns
        In the order of the table; tokens that are no genes (`<cls>`, `<pad>`, ...) are not among them.
    column_of : int32[largest token + 1]
        Position in `genes` of each token; `NO_GENE` for `<cls>` and the like, `UNKNOWN` for numbers that are no token.
    """

    path: Path
    genes: GeneColumns
    column_of: NDArray[np.int32]

    def columns(self, tokens: NDArray[Any]) -> NDArray[np.int32]:
        """Return the position in `genes` of each token, `UNKNOWN` or `NO_GENE` where it has none."""
        inside = (tokens >= 0) & (tokens < self.column_of.size)
        columns: NDArray[np.int32]
        if inside.all():
            columns = self.column_of[tokens]
        else:
            columns = np.where(inside, self.column_of[np.where(inside, tokens, 0)], np.int32(UNKNOWN))
        return columns

    @property
    def span(self) -> str:
        """Its size, in words for messages."""
        known = np.flatnonzero(self.column_of >= 0)
        return f"{len(self.genes)} genes, tokens {known[0]} to {known[-1]}" if known.size else "no genes"


def find_token_table(folder: Path) -> Path | None:
    """Return the table of tokens that goes with the lists in a folder: in it, in its or its parent's `metadata`."""
    for place in (folder, folder / "metadata", folder.parent / "metadata", folder.parent):
        for name in TABLE_NAMES:
            if (place / name).is_file():
                return place / name
    return None


def read_token_table(path: Path) -> TokenTable:
    """Return the table at `path`: Parquet with a column of tokens, or JSON of {name: token}.

    Raises
    ------
    FormatError
        It cannot be read, a token stands twice, or a row names no gene.
    """
    tokens, genes = _from_json(path) if path.suffix.lower() == ".json" else _from_parquet(path)
    if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) > LARGEST_TOKEN):
        wrong = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
        raise FormatError(f"{path}: token {wrong} is out of range; expected numbers from 0 to {LARGEST_TOKEN}.")
    if np.unique(tokens).size != tokens.size:
        values, uses = np.unique(tokens, return_counts=True)
        raise FormatError(f"{path}: token {int(values[uses > 1][0])} stands for more than one gene.")
    is_gene = np.array([SPECIAL.match(name) is None for name in genes.index], bool)
    column_of = np.full(int(tokens.max()) + 1 if tokens.size else 0, UNKNOWN, np.int32)
    column_of[tokens] = np.where(is_gene, np.cumsum(is_gene) - 1, NO_GENE)
    kept = np.flatnonzero(is_gene).tolist()
    if not kept:
        raise FormatError(f"{path}: there is no gene in this table of {tokens.size} tokens.")
    columns = {name: [column[i] for i in kept] for name, column in genes.columns.items()}
    return TokenTable(path, GeneColumns([genes.index[i] for i in kept], columns), column_of)


def _from_json(path: Path) -> tuple[NDArray[np.int64], GeneColumns]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a JSON of gene names and tokens ({_first_line(error)}).") from None
    if not isinstance(found, dict) or not all(type(token) is int for token in found.values()):
        raise FormatError(f'{path}: expected a JSON object of gene names and their tokens, as in {{"CD4": 17}}.')
    names = sorted(found, key=found.__getitem__)
    if names and not -(2**63) <= found[names[0]] <= found[names[-1]] < 2**63:
        raise FormatError(f"{path}: tokens beyond 64 bits; expected numbers from 0 to {LARGEST_TOKEN}.")
    return np.array([found[name] for name in names], np.int64), GeneColumns(names)


def _from_parquet(path: Path) -> tuple[NDArray[np.int64], GeneColumns]:
    with reading_parquet(path):
        file = open_parquet(path)
        schema = file.schema_arrow
        numbers = {name.casefold(): name for name in schema.names if pa.types.is_integer(schema.field(name).type)}
        texts = [name for name in schema.names if _is_text(schema.field(name).type)]
        key = next((numbers[name] for name in TOKEN_COLUMNS if name in numbers), None)
        if key is None or not texts:
            raise FormatError(
                f"{path}: expected a table of genes with the columns token_id, ensembl_id and gene_symbol; it has "
                f"{', '.join(schema.names) or 'none'}."
            )
        table = file.read(columns=[key, *texts])
        if table.column(key).null_count:
            raise FormatError(f"{path}: a row has no {key}.")
        tokens = table.column(key).cast(pa.int64()).to_numpy()
        columns = {name: [text or "" for text in table.column(name).to_pylist()] for name in texts}
    folded = {name.casefold(): name for name in texts}
    ranked = [folded[name] for name in (*ID_COLUMNS, *SYMBOL_COLUMNS) if name in folded] or texts
    index = [next(filter(None, row), "") for row in zip(*(columns[name] for name in ranked), strict=True)]
    if "" in index:
        raise FormatError(f"{path}: row {index.index('')} (token {tokens[index.index('')]}) names no gene.")
    return tokens, GeneColumns(index, columns)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
