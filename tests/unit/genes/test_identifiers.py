from __future__ import annotations

import pytest

from cellmill.genes import IdKind, embedded_id, kind_of, kind_shares, looks_like, strip_version, strip_versions


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("ENSG00000141510.17", "ENSG00000141510"),
        ("ENSG00000141510", "ENSG00000141510"),
        ("ENSMUSG00000051951.6", "ENSMUSG00000051951"),
        ("ENSRNOG00000010756.4", "ENSRNOG00000010756"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("AC004797.1", "AC004797.1"),
        ("ENSG0000014151.1", "ENSG0000014151.1"),
        ("TAP2_ENSG00000204267.3", "TAP2_ENSG00000204267.3"),
        ("", ""),
    ],
)
def test_only_ensembl_gene_ids_lose_a_version(name: str, stripped: str) -> None:
    assert strip_version(name) == stripped
    assert strip_versions([name, name]) == [stripped, stripped]


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("TAP2_ENSG00000204267", "ENSG00000204267"),
        ("ENSG00000204267.15|TAP2", "ENSG00000204267"),
        ("hg19_ENSG00000204267", "ENSG00000204267"),
        ("Lypla1_ENSMUSG00000025903", "ENSMUSG00000025903"),
        ("ENSG00000204267-ENSG00000204264", None),
        ("ENSG000002042671", None),
        ("TAP2", None),
    ],
)
def test_an_id_inside_a_name_is_found_when_it_is_the_only_one(name: str, inside: str | None) -> None:
    assert embedded_id(name) == inside


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ENSG00000141510.17", IdKind.ENSEMBL_HUMAN),
        ("ENSMUSG00000051951", IdKind.ENSEMBL_MOUSE),
        ("ENSRNOG00000010756", IdKind.ENSEMBL_OTHER),
        ("7157", IdKind.ENTREZ),
        ("ERCC-00156", IdKind.SPIKE_IN),
        ("TP53", IdKind.SYMBOL),
        ("7SK", IdKind.SYMBOL),
        ("HLA-DRB1", IdKind.SYMBOL),
        ("", IdKind.UNKNOWN),
        ("a sentence about a gene", IdKind.UNKNOWN),
    ],
)
def test_the_kind_of_one_name(name: str, kind: IdKind) -> None:
    assert kind_of(name) is kind


def test_a_list_is_of_a_kind_from_sixty_per_cent_on() -> None:
    assert looks_like(["TP53"] * 6 + ["7157"] * 4) is IdKind.SYMBOL
    assert looks_like(["TP53"] * 5 + ["7157"] * 5) is IdKind.UNKNOWN
    assert looks_like([]) is IdKind.UNKNOWN
    assert kind_shares(["TP53", "7157", "CD3E", "MS4A1"]) == {IdKind.SYMBOL: 0.75, IdKind.ENTREZ: 0.25}
