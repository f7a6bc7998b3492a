"""`python -m cellmill`: the same as the `cellmill` command (floor 9)."""

from __future__ import annotations

from cellmill.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
