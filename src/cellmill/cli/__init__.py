"""The command line (floor 9): one file per verb, thin over the Python API.

Knows how things are shown: tables, bars, JSON, exit codes. Must not know how anything is computed: what a verb does, a
Python program can do with one call.
"""

from __future__ import annotations

from cellmill.cli.app import app, main

__all__ = ["app", "main"]
