"""The examples on the pages of these recipes print what the pages say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[3] / "docs" / "recipes"


@pytest.mark.parametrize("page", ["scfoundation", "aido-cell", "transcriptformer", "cellfm"])
def test_the_example_prints_what_the_page_says(page):
    code = re.findall(r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert code
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("".join(code), page, "exec"), {})
    shown = [line[2:] for line in "".join(code).splitlines() if line.startswith("# ")]
    assert out.getvalue().splitlines() == shown
