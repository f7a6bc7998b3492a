from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import NotFoundError
from cellmill.genes import REFERENCES, GeneTable

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
SHARED = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared"))
TABLES = REPOSITORY / "src" / "cellmill" / "genes" / "tables"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_gene_tables", REPOSITORY / "scripts" / "build_gene_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("species", ["human", "mouse"])
def test_genes_are_unique_and_ascending(species: str) -> None:
    table = GeneTable.load(species)
    assert list(table.ids) == sorted(set(table.ids))
    assert len(table.ids) == len(table.symbols) == len(table) > 70_000
    assert table.species == species
    assert all(table.symbols)


def test_tables_say_where_they_come_from_and_stay_small() -> None:
    assert "GENCODE v48" in GeneTable.load("human").sources
    assert "HGNC" in GeneTable.load("human").sources
    assert "GENCODE M37" in GeneTable.load("mouse").sources
    assert sum(path.stat().st_size for path in TABLES.glob("*.parquet")) < 4 * 1024**2


def test_a_gene_is_found_under_every_name_it_went_by() -> None:
    table = GeneTable.load("human")
    septin = table.positions["ENSG00000168385"]
    assert table.symbols[septin] == "SEPTIN2"
    assert septin in table.current["SEPTIN2"]
    assert septin in table.references["tenx_hg19"]["SEPT2"]
    assert septin in table.previous["SEPT2"]
    assert {"SEPT2", "SEPTIN2"} <= table.known_names
    assert set(table.references) == set(REFERENCES)


def test_genes_that_share_a_name_are_in_genome_order() -> None:
    table = GeneTable.load("human")
    index = table.references["tenx_hg19"]
    assert [table.ids[g] for g in index["PSMA2"]] == ["ENSG00000256646", "ENSG00000106588"]
    assert [table.ids[g] for g in index["LIMS3"]] == ["ENSG00000256977", "ENSG00000257207"]
    assert table.ids[index["CDRT1"][-1]] == "ENSG00000181464"  # retired, without a place: last


def test_an_unknown_species_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'human'"):
        GeneTable.load("humna")


def test_the_script_builds_the_shipped_tables(script: ModuleType, tmp_path: Path) -> None:
    folder = SHARED / "genes"
    if not (folder / "genes_human.csv").exists():
        pytest.skip(f"no annotation CSVs in {folder}")
    human, mouse = (script.read_rows(folder / f"genes_{species}.csv") for species in ("human", "mouse"))
    built = (
        script.build_table(human, "human", {}),
        script.build_table(mouse, "mouse", script.orthologue_names(human, mouse)),
    )
    for species, table in zip(("human", "mouse"), built, strict=True):
        shipped = pq.read_table(TABLES / f"{species}.parquet")
        assert table.equals(shipped, check_metadata=True)
        script.write_table(table, tmp_path / "again.parquet")
        if pq.read_metadata(TABLES / f"{species}.parquet").created_by == f"parquet-cpp-arrow version {pa.__version__}":
            assert (tmp_path / "again.parquet").read_bytes() == (TABLES / f"{species}.parquet").read_bytes()


def test_earlier_human_names_pass_to_mouse_only_when_one_gene_can_be_meant(script: ModuleType) -> None:
    def gene(symbol: str, biotype: str = "protein_coding", previous: str = "") -> dict[str, str]:
        references = dict.fromkeys(script.REFERENCES.values(), "")
        return {"symbol": symbol, "biotype": biotype, "prev_symbols": previous, **references}

    human = [
        gene("SEPTIN2", previous="SEPT2|TAKEN"),
        gene("AAA", previous="BOTH"),
        gene("BBB", previous="BOTH"),
        gene("NCR", "lncRNA", "OLD"),
    ]
    mouse = [gene("Septin2"), gene("Aaa"), gene("Bbb"), gene("Taken"), gene("Ncr")]
    assert script.orthologue_names(human, mouse) == {"Septin2": ["Sept2"]}
