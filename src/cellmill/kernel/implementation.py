"""Which kernel this process uses (floor 1, kernel): the native one where it can be loaded, else the reference."""

from __future__ import annotations

import importlib
import os
from typing import Any

from cellmill.errors import ConfigError, nearest
from cellmill.kernel import reference

__all__ = ["IMPLEMENTATION", "chosen", "native_error", "vectors"]


def _pick() -> tuple[Any, str, str | None]:
    """Return (module, its name, why it is not the native one)."""
    asked = os.environ.get("CELLMILL_KERNEL", "").strip().lower()
    if asked not in ("", "native", "reference"):
        raise ConfigError(
            f"the environment variable CELLMILL_KERNEL is {asked!r}; expected 'native' or 'reference'. "
            f"Unset it to use the native kernel where it can be loaded.{nearest(asked, ('native', 'reference'))}"
        )
    if asked == "reference":
        return reference, "reference", "the environment variable CELLMILL_KERNEL asks for the reference"
    try:
        native = importlib.import_module("cellmill.kernel._native")
    except ImportError as error:
        if asked == "native":
            raise ConfigError(
                f"CELLMILL_KERNEL asks for the native kernel, which was not built or cannot be loaded: {error}. "
                "Unset it to use the reference in NumPy, or install cellmill again with a C++20 compiler."
            ) from None
        return reference, "reference", f"the native module was not built or cannot be loaded: {error}"
    return native, "native", None


chosen, IMPLEMENTATION, _native_error = _pick()


def native_error() -> str | None:
    """Return why the native kernel is not in use, or None when it is."""
    return _native_error


def vectors() -> str:
    """Return with which vectors of the processor frames are decoded: "avx512", "avx2", or "plain" for none."""
    return ("plain", "avx2", "avx512")[chosen.vectors_in_use()] if _native_error is None else "plain"
