from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import h5py
import pyarrow as pa
import pytest

from cellmill.genes import GeneTable, Outcome, find_reference, recognise_species, resolve

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
SHARED = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared"))
HUMAN = GeneTable.load("human")
MOUSE = GeneTable.load("mouse")


def hg19_names(count: int) -> list[str]:
    """Names of a file made with the 10x hg19 reference, those first that mean something else today."""
    index = HUMAN.references["tenx_hg19"]
    plain = [name for name, positions in index.items() if len(positions) == 1 and not name.startswith("AC")]
    return sorted(plain, key=lambda name: name in HUMAN.current)[:count]


@pytest.mark.parametrize(
    ("name", "gene_id", "outcome"),
    [
        ("ENSG00000141510", "ENSG00000141510", Outcome.EXACT_ID),
        ("ENSG00000141510.17", "ENSG00000141510", Outcome.EXACT_ID),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378", Outcome.EXACT_ID),
        ("TAP2_ENSG00000204267", "ENSG00000204267", Outcome.SYMBOL_WITH_ID),
        ("TP53", "ENSG00000141510", Outcome.CURRENT_SYMBOL),
        ("SEPT2", "ENSG00000168385", Outcome.TENX_SYMBOL),
        ("SFRS13A", "ENSG00000188529", Outcome.PREVIOUS_SYMBOL),
        ("CD20", "ENSG00000156738", Outcome.PREVIOUS_SYMBOL),
        ("LFS1", "ENSG00000141510", Outcome.ALIAS),
        ("NOTAGENE", None, Outcome.UNMATCHED),
        ("ENSG00000999999", None, Outcome.UNMATCHED),
        ("Y_RNA", None, Outcome.AMBIGUOUS),
    ],
)
def test_each_rule_answers(name: str, gene_id: str | None, outcome: Outcome) -> None:
    found = resolve([name], None, HUMAN)
    assert (found.ids[0], found.outcomes[0]) == (gene_id, outcome)


def test_a_symbol_of_two_genes_means_the_better_established_one() -> None:
    assert resolve(["WASH7P"], None, HUMAN).ids == ("ENSG00000227232",)
    assert resolve(["Ddit3"], None, MOUSE).ids == ("ENSMUSG00000025408",)


def test_earlier_mouse_names_are_found_through_the_human_gene() -> None:
    found = resolve(["Lypla1", "Sept2"], None, MOUSE)
    assert found.outcomes == (Outcome.CURRENT_SYMBOL, Outcome.ORTHOLOGUE_SYMBOL)
    assert found.ids[1] == MOUSE.ids[MOUSE.current["Septin2"][0]]


def test_the_reference_of_a_file_decides_what_a_recycled_symbol_means() -> None:
    names = [*hg19_names(200), "TAF9", "NME2"]
    found = resolve(names, None, HUMAN)
    assert found.reference == "tenx_hg19" == find_reference(names, HUMAN)
    assert found.ids[-2:] == ("ENSG00000085231", "ENSG00000011052")
    assert found.outcomes[-2:] == (Outcome.TENX_SYMBOL, Outcome.TENX_SYMBOL)
    today = resolve(["TAF9", "NME2"], None, HUMAN)
    assert today.reference is None
    assert today.ids == ("ENSG00000273841", "ENSG00000243678")
    assert today.outcomes == (Outcome.CURRENT_SYMBOL, Outcome.CURRENT_SYMBOL)


def test_every_name_of_a_reference_that_it_gave_once_comes_back_as_its_gene() -> None:
    for reference, index in HUMAN.references.items():
        names = [name for name, positions in index.items() if len(positions) == 1]
        found = resolve(names, None, HUMAN)
        assert found.reference == reference
        by_id = resolve([HUMAN.ids[index[name][0]] for name in names], None, HUMAN)  # or the successor of that id
        assert found.ids == by_id.ids


def test_names_made_unique_are_told_apart_by_genome_order() -> None:
    first, second = (HUMAN.ids[position] for position in HUMAN.references["tenx_hg19"]["LIMS3"])
    assert HUMAN.spans[HUMAN.positions[first]] < HUMAN.spans[HUMAN.positions[second]]
    for names in (["LIMS3", "LIMS3-1"], ["LIMS3", "LIMS3"]):
        assert resolve([*hg19_names(100), *names], None, HUMAN).ids[-2:] == (first, second)
    assert resolve([*hg19_names(100), "LIMS3.1"], None, HUMAN).ids[-1] == second


@pytest.mark.parametrize(
    ("name", "why"),
    [("PNRC2", "one has no place"), ("PSMA2", "they overlap"), ("CKS1B", "they lie on two chromosomes")],
)
def test_copies_whose_order_on_the_genome_is_not_certain_are_ambiguous(name: str, why: str) -> None:
    for copies in ([name, f"{name}-1"], [name, name]):
        found = resolve([*hg19_names(100), *copies], None, HUMAN)
        assert found.outcomes[-2:] == (Outcome.AMBIGUOUS, Outcome.AMBIGUOUS), why
    assert resolve([*hg19_names(100), f"{name}.1"], None, HUMAN).outcomes[-1] == Outcome.AMBIGUOUS


@pytest.mark.parametrize("made_unique", [False, True])
def test_the_names_of_a_real_10x_list_never_mean_another_gene(made_unique: bool) -> None:
    path = SHARED / "data" / "pbmc_1k_v2_10x.h5"
    if not path.exists():
        pytest.skip(f"no real file at {path}")
    with h5py.File(path) as file:
        ids, names = ([item.decode() for item in file[f"matrix/features/{part}"][()]] for part in ("id", "name"))
    if made_unique:
        seen: Counter[str] = Counter()
        for i, name in enumerate(names):
            names[i] = f"{name}-{seen[name]}" if seen[name] else name
            seen[name] += 1
    found = resolve(names, None, HUMAN)
    meant = resolve(ids, None, HUMAN).ids  # the ids themselves, or the successors of retired ones
    assert [(a, name, b) for a, name, b in zip(meant, names, found.ids, strict=True) if b not in (a, None)] == []
    assert sum(gene_id is None for gene_id in found.ids) < 50


def test_a_doubled_name_is_the_gene_that_no_other_column_claims() -> None:
    found = resolve([*hg19_names(100), "CLN3", "CLN3_ENSG00000188603"], None, HUMAN)
    assert found.ids[-2:] == ("ENSG00000261832", "ENSG00000188603")


def test_a_suffix_that_belongs_to_a_real_symbol_is_left_alone() -> None:
    found = resolve([*hg19_names(100), "NKX2-1"], None, HUMAN)
    assert found.ids[-1] == "ENSG00000136352"


def test_a_name_of_the_reference_is_never_read_as_a_copy() -> None:
    names = pa.array(["NKX2", "NKX2", "NKX2-1"])
    columns = {
        name: names if name in ("symbol", "tenx_hg19") else HUMAN.arrow[name][:3] for name in HUMAN.arrow.column_names
    }
    table = GeneTable(species="human", arrow=pa.table(columns))
    for reference in ("tenx_2020a", "tenx_grch38_3_0", "tenx_grch38_1_2"):
        assert not set(table.references[reference]) & {"NKX2", "NKX2-1"}
    old = table.arrow.set_column(1, "symbol", pa.array(["x", "y", "z"]))
    for one in (table, GeneTable(species="human", arrow=old)):
        assert resolve(["NKX2-1", "NKX2"], None, one).ids[0] == table.ids[2]


@pytest.mark.parametrize(("weak", "firm"), [("CD20", "MS4A1"), ("LFS1", "TP53")])
def test_an_old_name_or_alias_never_adds_to_a_gene_that_is_named_better(weak: str, firm: str) -> None:
    assert resolve([weak, firm], None, HUMAN).outcomes == (Outcome.AMBIGUOUS, Outcome.CURRENT_SYMBOL)


@pytest.mark.parametrize(
    ("names", "kept"),
    [(["HF1", "HF2"], None), (["CD20", "CD20"], None), (["CD20", "B1"], 0), (["B1", "CD20", "Bp35"], 1)],
)
def test_of_old_names_and_aliases_of_one_gene_the_one_best_counts_or_none(names: list[str], kept: int | None) -> None:
    found = resolve(names, None, HUMAN)
    assert [i for i, gene_id in enumerate(found.ids) if gene_id is not None] == ([] if kept is None else [kept])
    assert all(outcome is Outcome.AMBIGUOUS for i, outcome in enumerate(found.outcomes) if i != kept)


@pytest.mark.parametrize("unknown", ["ENSG00000999990", "ENSG00000999990.2", "GRCh38_ENSG00000999990"])
def test_an_unknown_ensembl_id_is_never_added_to_a_gene_that_the_file_names_itself(unknown: str) -> None:
    for other, symbol in (("ENSG00000141510", "TP53"), ("1", "TP53"), ("ENSG00000141510", "renamed")):
        found = resolve([unknown, other], ["TP53", symbol], HUMAN)
        assert found.ids == (None, "ENSG00000141510")
        assert found.outcomes[0] is Outcome.AMBIGUOUS


def test_two_unknown_ensembl_ids_of_one_symbol_are_ambiguous_and_one_alone_is_taken() -> None:
    unknown = ["ENSG00000999990", "ENSG00000999991"]
    assert resolve(unknown, ["TP53", "TP53"], HUMAN).outcomes == (Outcome.AMBIGUOUS, Outcome.AMBIGUOUS)
    assert resolve(unknown, ["TP53", "CD3E"], HUMAN).ids == ("ENSG00000141510", "ENSG00000198851")
    found = resolve(unknown, ["TP53", "LFS1"], HUMAN)  # a symbol of today is a better claim than an alias
    assert found.ids == ("ENSG00000141510", None)


def test_symbols_help_where_ids_say_nothing() -> None:
    found = resolve(["ENSG00000141510", "1", "ENSG00000999999"], ["TP53", "CD3E", "MS4A1"], HUMAN)
    assert found.ids == ("ENSG00000141510", "ENSG00000198851", "ENSG00000156738")
    found = resolve(["1"], ["TAP2|ENSG00000204267.3"], HUMAN)
    assert (found.ids, found.outcomes) == (("ENSG00000204267",), (Outcome.SYMBOL_WITH_ID,))
    found = resolve(["CD3E", "TP53"], ["no name", ""], HUMAN)
    assert found.ids == ("ENSG00000198851", "ENSG00000141510")


def test_ids_and_symbols_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="2 gene ids but 1 symbols"):
        resolve(["TP53", "CD3E"], ["TP53"], HUMAN)


def test_no_genes_resolve_to_no_genes() -> None:
    assert resolve([], None, HUMAN).ids == ()


@pytest.mark.parametrize(
    ("ids", "symbols", "species"),
    [
        (["ENSG00000141510.1"] * 3, None, "human"),
        (["ENSMUSG00000051951"] * 3, None, "mouse"),
        (["ENSRNOG00000010756"] * 3, None, None),
        (["TP53", "CD3E", "MS4A1"], None, "human"),
        (["Lypla1", "Tcea1", "Rgs20"], None, "mouse"),
        (["0", "1", "2"], ["Lypla1", "Tcea1", "Rgs20"], "mouse"),
        (["YAL001C", "YAL002W"], None, None),
        (["C10orf10", "C10orf104"], None, None),  # names that either species has gone by
        ([], None, None),
    ],
)
def test_species_is_recognised(ids: list[str], symbols: list[str] | None, species: str | None) -> None:
    assert recognise_species(ids, symbols) == species


def living_bearers(table: GeneTable, name: str) -> set[int]:
    """The living genes to which a 10x Genomics reference or HGNC says a name once belonged."""
    bearers = {p for index in table.references.values() for p in index.get(name, ())} | set(
        table.previous.get(name, ())
    )
    return {position for position in bearers if not table.retired[position]}


@pytest.mark.parametrize("table", [HUMAN, MOUSE], ids=["human", "mouse"])
def test_no_name_means_a_retired_id_where_a_living_gene_bore_it(table: GeneTable) -> None:
    retired = [position for position in range(len(table)) if table.retired[position]]
    columns = [table.arrow[column].to_pylist() for column in ("symbol", *table.references)]
    names = sorted({column[p] for column in columns for p in retired if column[p] and living_bearers(table, column[p])})
    padding = [name for name in table.current if name not in table.references["tenx_2020a"]][: len(names)]
    together = resolve([*names, *padding], None, table)
    assert together.reference is None
    alone = [resolve([name], None, table).ids[0] for name in names]
    listed = {*names, *padding}
    for name, one, other in zip(names, alone, together.ids, strict=False):
        assert one is None or not table.retired[table.positions[one]], name
        named_itself = any(table.symbols[p] in listed for p in living_bearers(table, name))
        assert other is None or named_itself or not table.retired[table.positions[other]], name
    if table is HUMAN:
        found = resolve(["SEPT1"], None, table)
        assert (found.ids, found.outcomes) == (("ENSG00000180096",), (Outcome.TENX_SYMBOL,))
        assert resolve(["C17orf47"], None, table).ids == ("ENSG00000108387",)


@pytest.mark.parametrize("reference", HUMAN.references)
def test_a_name_that_a_reference_gave_to_a_retired_and_a_living_gene_means_the_living_one(reference: str) -> None:
    index = HUMAN.references[reference]
    plain = [name for name, positions in index.items() if len(positions) == 1][:20_000]
    shared = [name for name, positions in index.items() if len({HUMAN.retired[p] for p in positions}) == 2]
    found = resolve([*plain, *shared], None, HUMAN)
    assert found.reference == reference
    assert shared
    for name, gene_id in zip(shared, found.ids[len(plain) :], strict=True):
        assert gene_id is None or not HUMAN.retired[HUMAN.positions[gene_id]], name


@pytest.mark.parametrize(("old", "heir"), [("C17orf47", "SEPTIN4"), ("SEPT1", "SEPTIN1")])
def test_a_retired_id_keeps_its_symbol_where_the_file_names_the_living_gene_too(old: str, heir: str) -> None:
    found = resolve([old, heir], None, HUMAN)
    assert found.outcomes == (Outcome.CURRENT_SYMBOL, Outcome.CURRENT_SYMBOL)
    assert [HUMAN.retired[HUMAN.positions[str(gene_id)]] for gene_id in found.ids] == [True, False]


def test_a_retired_id_means_its_successor_unless_the_file_names_that_too() -> None:
    old, new = "ENSG00000005955", "ENSG00000278311"  # GGNBP2, on hg19 and since
    found = resolve([f"{old}.7", "ENSG00000141510"], None, HUMAN)
    assert found.ids == (new, "ENSG00000141510")
    assert found.outcomes == (Outcome.RETIRED_ID, Outcome.EXACT_ID)
    for both in ([old, new], [old, "GGNBP2"]):
        kept = resolve(both, None, HUMAN)
        assert kept.ids == (old, new)
        assert kept.outcomes[0] is Outcome.EXACT_ID


def test_every_successor_is_one_living_gene_that_no_reference_holds_beside_the_retired_id() -> None:
    heirs = HUMAN.successors
    assert 300 < len(heirs) < sum(HUMAN.retired)
    columns = [HUMAN.arrow[name].to_pylist() for name in HUMAN.references]
    for old, new in heirs.items():
        assert HUMAN.retired[old] and not HUMAN.retired[new]
        assert not any(column[old] and column[new] for column in columns), HUMAN.ids[old]
    alone = resolve([HUMAN.ids[old] for old in heirs], None, HUMAN)
    claims = Counter(heirs.values())
    for (old, new), found, outcome in zip(heirs.items(), alone.ids, alone.outcomes, strict=True):
        meant = (new, Outcome.RETIRED_ID) if claims[new] == 1 else (old, Outcome.EXACT_ID)
        assert (found, outcome) == (HUMAN.ids[meant[0]], meant[1])
    assert not MOUSE.successors  # no retired mouse ids are known


@pytest.mark.parametrize("table", [HUMAN, MOUSE], ids=["human", "mouse"])
def test_an_alias_of_a_living_gene_does_not_win_over_the_retired_id_that_bore_the_name(table: GeneTable) -> None:
    """An alias is no proof, and 10x Genomics references hold most of these side by side with the living gene."""
    only_retired = {name for name, positions in table.current.items() if all(table.retired[p] for p in positions)}
    named = {name for name in only_retired & set(table.alias) if not living_bearers(table, name)}
    if table is HUMAN:
        assert named == {"SBP1", "KIAA1658", "LCA10", "IFRG15", "PRED57", "hsa-mir-150", "RP11-332J15.1"}
    else:
        assert not named
    for name in named:
        found = resolve([name], None, table)
        assert table.retired[table.positions[str(found.ids[0])]], name
        assert found.outcomes == (Outcome.CURRENT_SYMBOL,)
