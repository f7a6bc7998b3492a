"""The worked examples on the pages of recipes print what the comments beside them say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[3] / "docs" / "recipes"
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^(?:print\(.*\)  )?# (.*)$", re.MULTILINE)  # beside the call, or in lines of its own


@pytest.mark.parametrize("page", sorted(page.stem for page in PAGES.glob("*.md")))
def test_example_prints_what_the_page_says(page):
    blocks = BLOCK.findall((PAGES / f"{page}.md").read_text())
    assert blocks
    for block, text in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, page, "exec"), {})
        said = text.splitlines() or SAID.findall(block)
        assert said
        assert out.getvalue().splitlines() == said
