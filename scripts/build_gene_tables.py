"""Build the gene tables that cellmill ships, from the two annotation CSVs.

    python scripts/build_gene_tables.py FOLDER [--out src/cellmill/genes/tables]

FOLDER holds genes_human.csv and genes_mouse.csv: one gene a row, assembled from GENCODE v48 and v49 (human), GENCODE
M37 and M38 (mouse), HGNC identifiers with previous and alias symbols, and the symbols that four 10x Genomics
references gave to each gene (hg19, GRCh38 1.2.0, GRCh38 3.0.0, 2020-A). The output is the same, byte for byte, for the
same input and the same pyarrow: rows are ordered by gene id, nothing carries a date.

Mouse has no table of earlier names here. Mouse genes were renamed together with their human counterparts, so the
column `orthologue` carries the earlier names of the human gene that has the same symbol today, in mouse spelling,
where that is unambiguous and no other mouse gene bears the name.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, str]

REFERENCES = {
    "tenx_hg19": "tenx_hg19",
    "tenx_grch38_1_2": "tenx_grch38_1.2",
    "tenx_grch38_3_0": "tenx_grch38_3.0",
    "tenx_2020a": "tenx_2020A",
}
SOURCES = {
    "human": "GENCODE v48 and v49 genes; HGNC identifiers, previous and alias symbols; gene names of the 10x Genomics "
    "references hg19, GRCh38 1.2.0, GRCh38 3.0.0 and 2020-A; retired Ensembl ids as found in those references",
    "mouse": "GENCODE M37 and M38 genes; column orthologue derived from HGNC previous symbols of the human gene of "
    "the same name",
}
CLONE = re.compile(r"[A-Z]{1,2}\d{5,6}\.\d+")
SCHEMA = pa.schema(
    [
        pa.field("gene_id", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("biotype", pa.string()),
        pa.field("chromosome", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("length", pa.int32()),
        pa.field("mitochondrial", pa.bool_(), nullable=False),
        pa.field("ribosomal", pa.bool_(), nullable=False),
        pa.field("retired", pa.bool_(), nullable=False),
        pa.field("hgnc_id", pa.int32()),
        pa.field("previous", pa.string()),
        pa.field("alias", pa.string()),
        pa.field("orthologue", pa.string()),
        pa.field("successor", pa.string()),
        *(pa.field(name, pa.string()) for name in REFERENCES),
    ]
)


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return sorted(rows, key=lambda row: row["ensembl_id"])


def previous_names(row: Row) -> list[str]:
    names = [*row.get("prev_symbols", "").split("|"), row.get("hgnc_symbol_2020", "")]
    return sorted({name for name in names if name and name != row["symbol"]})


def alias_names(row: Row) -> list[str]:
    taken = {row["symbol"], *previous_names(row)}
    return sorted({name for name in row.get("alias_symbols", "").split("|") if name and name not in taken})


def mouse_spelling(symbol: str) -> str:
    return symbol[:1].upper() + symbol[1:].lower()


def orthologue_names(human: list[Row], mouse: list[Row]) -> dict[str, list[str]]:
    """Earlier names of mouse genes by mouse symbol, taken over from the human gene of the same name."""
    current = {row["symbol"] for row in mouse}
    coding = {row["symbol"] for row in mouse if row["biotype"] == "protein_coding"}
    owners: dict[str, set[str]] = defaultdict(set)
    for row in human:
        symbol = mouse_spelling(row["symbol"])
        if row["biotype"] != "protein_coding" or symbol not in coding:
            continue
        earlier = [*previous_names(row), *(row[column] for column in REFERENCES.values())]
        for name in earlier:
            if name and mouse_spelling(name) not in current:
                owners[mouse_spelling(name)].add(symbol)
    names: dict[str, list[str]] = defaultdict(list)
    for name, symbols in sorted(owners.items()):
        if len(symbols) == 1:
            names[next(iter(symbols))].append(name)
    return names


def living_of(rows: list[Row]) -> list[dict[str, set[str]]]:
    """Ids of living genes by the name that they bear today, bore in a reference, or bore before."""
    indices: list[dict[str, set[str]]] = [defaultdict(set) for _ in range(3)]
    for row in rows:
        if row["in_gencode"] == "retired":
            continue
        named = ([row["symbol"]], [row.get(column, "") for column in REFERENCES.values()], previous_names(row))
        for index, names in zip(indices, named, strict=True):
            for name in names:
                if name:
                    index[name].add(row["ensembl_id"])
    return indices


def successors(rows: list[Row]) -> dict[str, str]:
    """Which living id a retired one went over to, where that is certain.

    Ensembl gives a gene a new id when its model changes too much. The new id bears the name of the old one: the
    successor is the one living gene that has a name of the retired id as its symbol, as its name in a reference, or,
    according to HGNC, as a previous symbol; the first of these that answers decides. A gene that a 10x Genomics
    reference holds beside the retired id is another gene, since both were counted. Names of clones such as AL589739.1
    prove nothing: their numbers were given anew with each release.
    """
    by_id = {row["ensembl_id"]: row for row in rows}
    indices = living_of(rows)
    found = {}
    for row in rows:
        if row["in_gencode"] != "retired":
            continue
        names = {row["symbol"], *(row.get(column, "") for column in REFERENCES.values())}
        names = {name for name in names if name and not CLONE.fullmatch(name)}
        heirs = next((ids for index in indices if (ids := set().union(*(index.get(n, ()) for n in names)))), set())
        if len(heirs) != 1:
            continue
        heir = next(iter(heirs))
        if not any(by_id[heir].get(column) and row.get(column) for column in REFERENCES.values()):
            found[row["ensembl_id"]] = heir
    return found


def whole(text: str) -> int | None:
    return int(text) if text else None


def build_table(rows: list[Row], species: str, orthologues: dict[str, list[str]]) -> pa.Table:
    heirs = successors(rows)
    columns = {
        "gene_id": [row["ensembl_id"] for row in rows],
        "symbol": [row["symbol"] for row in rows],
        "biotype": [row["biotype"] or None for row in rows],
        "chromosome": [row["chromosome"] or None for row in rows],
        "start": [whole(row["start"]) for row in rows],
        "end": [whole(row["end"]) for row in rows],
        "length": [whole(row["length"]) for row in rows],
        "mitochondrial": [row["is_mito"] == "1" for row in rows],
        "ribosomal": [row["is_ribo"] == "1" for row in rows],
        "retired": [row["in_gencode"] == "retired" for row in rows],
        "hgnc_id": [whole(row.get("hgnc_id", "").removeprefix("HGNC:")) for row in rows],
        "previous": ["|".join(previous_names(row)) or None for row in rows],
        "alias": ["|".join(alias_names(row)) or None for row in rows],
        "orthologue": [
            "|".join(orthologues.get(row["symbol"], [])) if row["biotype"] == "protein_coding" else None for row in rows
        ],
        "successor": [heirs.get(row["ensembl_id"]) for row in rows],
        **{name: [row.get(column) or None for row in rows] for name, column in REFERENCES.items()},
    }
    columns["orthologue"] = [text or None for text in columns["orthologue"]]
    metadata = {"species": species, "sources": SOURCES[species], "table_format": "1"}
    return pa.table(columns, schema=SCHEMA.with_metadata(metadata))


def write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=["biotype", "chromosome"],
        column_encoding={"gene_id": "DELTA_BYTE_ARRAY", "start": "DELTA_BINARY_PACKED", "end": "DELTA_BINARY_PACKED"},
        write_statistics=False,
        row_group_size=1_000_000,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with genes_human.csv and genes_mouse.csv")
    parser.add_argument("--out", type=Path, default=Path("src/cellmill/genes/tables"))
    arguments = parser.parse_args()
    human = read_rows(arguments.folder / "genes_human.csv")
    mouse = read_rows(arguments.folder / "genes_mouse.csv")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for species, rows, orthologues in (("human", human, {}), ("mouse", mouse, orthologue_names(human, mouse))):
        path = arguments.out / f"{species}.parquet"
        write_table(build_table(rows, species, orthologues), path)
        print(f"{path}: {len(rows):,} genes, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
