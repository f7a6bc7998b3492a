"""How figures look (floor 2): colours, type, and matplotlib figures as SVG text or PNG bytes.

Knows matplotlib; must not know what is drawn. No global state of matplotlib is changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np

from cellmill.errors import MissingDependencyError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
except ImportError:
    raise MissingDependencyError("matplotlib", extra="report", needed_for="figures") from None

__all__ = [
    "ACCENT",
    "INK",
    "LABEL_COLOURS",
    "LINE",
    "REST_COLOUR",
    "SOFT",
    "STYLE",
    "legend_columns",
    "new_figure",
    "png_of",
    "short_label",
    "svg_of",
]

INK, SOFT, LINE = "#1b2430", "#5b6673", "#dfe4ea"
ACCENT = "#3b6fb6"
LABEL_COLOURS = (
    *("#3b6fb6", "#e8a33d", "#3a9a6e", "#c8553d", "#8a6fc1", "#2aa5b8", "#b0497e", "#9aa53a"),
    *("#7a9cc9", "#f0c987", "#8cc5a9", "#e19a8a", "#bba9dd", "#86cbd6"),
)
REST_COLOUR = "#c9d0d8"
_LONGEST_LABEL = 40
_LEGEND_WIDTH = 10.0  # inches that the columns of a legend may take
_CHARACTER_WIDTH = 0.083  # inches, of a wide font at the legend's size
_HANDLE_WIDTH = 0.45  # inches, of a legend's handle and the room around it
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cellmill",
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "grid.color": "#edf0f4",
    "grid.linewidth": 1.0,
}


def svg_of(figure: Figure) -> str:
    """Return the figure as an `<svg>` element that scales with the page and uses the page's font."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*pt"| height="[^"]*pt"', r"\1", text, count=2)


def png_of(figure: Figure, *, dots_per_inch: int = 300) -> bytes:
    """Return the figure as a PNG on white."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, *, hspace: float = 0.02) -> Figure:
    """Return an empty figure of so many inches, which lays itself out."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(hspace=hspace))


def short_label(label: str) -> str:
    """Return `label`, cut in its middle where it is too long for the side of a figure."""
    if len(label) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    return f"{label[: _LONGEST_LABEL - 1 - half].rstrip()}…{label[-half:].lstrip()}"


def legend_columns(labels: Sequence[str], *, most: int) -> int:
    """Return in how many columns a legend is not wider than its figure; a wider one leaves its axes no room."""
    sizes = np.array([_CHARACTER_WIDTH * len(label) + _HANDLE_WIDTH for label in labels])
    for n in range(min(len(labels), most), 1, -1):
        if sum(part.max() for part in np.array_split(sizes, n)) <= _LEGEND_WIDTH:  # matplotlib fills column by column
            return n
    return 1
