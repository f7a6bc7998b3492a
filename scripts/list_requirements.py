"""Print what `pip install` shall be given for development: build requirements, dependencies and every extra.

Only names and ranges: the versions are pinned by constraints.txt. Self-references (cellmill[torch]) are resolved, so
that the package itself is installed by a step of its own.

python scripts/list_requirements.py pyproject.toml
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())
wanted = [*project["build-system"]["requires"], "cmake", "ninja", *project["project"]["dependencies"]]
for extra in project["project"]["optional-dependencies"].values():
    wanted += extra
names = sorted({requirement for requirement in wanted if not requirement.startswith("cellmill[")})
print(" ".join(f"'{name}'" if re.search(r"[<>\s]", name) and sys.stdout.isatty() else name for name in names))
