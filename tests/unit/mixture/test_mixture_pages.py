"""What the pages about mixtures show is read as a mixture, over small stores instead of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cellmill.mixture import Mixture

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ["how-to/mixtures.md", "how-to/split-by-donor.md"]
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_read_and_those_of_shares_are_planned(page, atlas, gut, tmp_path):
    (tmp_path / "base.yaml").write_text(f"components: [{{name: blood, store: {atlas.path}}}]\n")
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    for block in blocks:
        for name, store in (("atlas.mill", atlas), ("replogle.mill", gut), ("eval.mill", gut)):
            block = block.replace(name, str(store.path))
        content = yaml.safe_load(block)
        blood = {"name": "blood", "store": str(atlas.path), "where": "tissue = 'blood'"}
        mix = Mixture.from_dict({"components": [blood], **content}, base=tmp_path)
        if all(isinstance(c.choose, str | None) for c in mix.components):
            assert mix.plan().n_cells > 0
        else:
            assert mix.names == ("blood", "perturbed")
