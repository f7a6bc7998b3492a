"""The kernels that must agree: the reference, and the native one with and without vectors."""

from __future__ import annotations

from typing import Any

import pytest

from cellmill.kernel import reference

try:
    from cellmill.kernel import _native as native
except ImportError:
    native = None


class WithoutVectors:
    """The native kernel as it is on a processor without AVX-512."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(native, name)
        if not callable(attribute) or isinstance(attribute, type):
            return attribute

        def call(*args: Any) -> Any:
            native.allow_wide(False)
            try:
                return attribute(*args)
            finally:
                native.allow_wide(True)

        return call


needs_native = pytest.mark.skipif(native is None, reason="the native kernel is not built here")
IMPLEMENTATIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(native, id="native", marks=needs_native),
    pytest.param(WithoutVectors(), id="native-plain", marks=needs_native),
]
PRESENT = [reference] if native is None else [reference, native, WithoutVectors()]
