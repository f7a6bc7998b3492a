"""Pages that a person reads gladly (floor 2): one look for reports and cards, figures included.

Knows jinja2, matplotlib and numbers as text; must not know stores, runs, or what is shown. The modules are imported by
those that make pages, not here: their libraries are optional (extra `report`).
"""
