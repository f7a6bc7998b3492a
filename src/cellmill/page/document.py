"""HTML documents that are one file and fetch nothing (floor 2). Knows jinja2; must not know what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cellmill.errors import MissingDependencyError
from cellmill.units import count_text, size_text, time_text

try:
    import jinja2
    import markupsafe
except ImportError:
    raise MissingDependencyError("jinja2", extra="report", needed_for="pages") from None

__all__ = ["drawn", "render_document"]


def render_document(
    room: str, template: str, /, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Return the template of a room (`cellmill.evaluate`, for one), filled; it extends `page.html.j2`.

    Whatever is filled in is escaped, but for what `drawn` returns. The filters `cells`, `seconds` and `bytes` write
    numbers as people read them; a name that the template does not get is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(room, "."), jinja2.PackageLoader("cellmill.page", ".")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(cells=count_text, seconds=time_text, bytes=size_text, **(filters or {}))
    return environment.get_template(template).render(**values)


def drawn(svg: str) -> markupsafe.Markup | None:
    """Return a figure as a template puts it in; matplotlib has escaped the names in it. None for an empty one."""
    return markupsafe.Markup(svg) if svg else None
