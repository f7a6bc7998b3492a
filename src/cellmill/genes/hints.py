"""What a name that means no gene may have been meant for (floor 2): for people to read, never used to resolve.

Knows the gene tables. Must not know how a name is resolved, nor of files.
"""

from __future__ import annotations

import re

from cellmill.genes.table import GeneTable

__all__ = ["genes_behind_a_date", "genes_of_name"]

# spreadsheets make dates of names such as MARCH1, SEPT2 and DEC1; the year, where they show it, is that of the typing
_DATE = re.compile(
    r"(?P<day>\d{1,2})[-. /](?P<month>[A-Za-z]{3,4})(?:[-. /]\d{2,4})?"
    r"|(?P<first>[A-Za-z]{3,4})[-. /](?P<second>\d{1,2})"
)
_MONTHS = {
    "jan": ("JAN",),
    "feb": ("FEB",),
    "mar": ("MARCH", "MARC", "MAR"),
    "apr": ("APR",),
    "may": ("MAY",),
    "jun": ("JUN",),
    "jul": ("JUL",),
    "aug": ("AUG",),
    "sep": ("SEPT", "SEP"),
    "sept": ("SEPT", "SEP"),
    "oct": ("OCT",),
    "nov": ("NOV",),
    "dec": ("DEC",),
}


def genes_of_name(name: str, table: GeneTable) -> tuple[int, ...]:
    """Return the positions of all genes that bear or bore a name, the best established first.

    Examples
    --------
    >>> table = GeneTable.load("human")
    >>> [table.symbols[position] for position in genes_of_name("CD45", table)][:1]
    ['PTPRC']
    """
    indices = [table.current, *table.references.values(), table.previous, table.orthologue, table.alias]
    found = dict.fromkeys(position for index in indices for position in index.get(name, ()))
    return tuple(sorted(found, key=table.standing.__getitem__, reverse=True))


def genes_behind_a_date(name: str, table: GeneTable) -> tuple[tuple[str, str], ...]:
    """Return (name, today's symbol) of the genes of whose names a spreadsheet makes this date; none for other names.

    Examples
    --------
    >>> genes_behind_a_date("1-Mar", GeneTable.load("human"))
    (('MARCH1', 'MARCHF1'), ('MARC1', 'MTARC1'), ('Mar1', 'RTL1'))
    """
    match = _DATE.fullmatch(name.strip())
    if match is None:
        return ()
    month, day = (match["month"], match["day"]) if match["month"] else (match["first"], match["second"])
    found = []
    for stem in _MONTHS.get(month.lower(), ()):
        for meant in (f"{stem}{int(day)}", f"{stem.capitalize()}{int(day)}"):
            bearers = genes_of_name(meant, table)
            if bearers:
                found.append((meant, table.symbols[bearers[0]]))
    return tuple(found)
