"""The kernels that must agree: the reference, and the native one with all vectors of the processor, fewer, none."""

from __future__ import annotations

from typing import Any

import pytest

from cellmill.kernel import reference

try:
    from cellmill.kernel import _native as native
except ImportError:
    native = None


class WithVectors:
    """The native kernel as on a processor with no wider vectors: 0 for none, 1 for AVX2, 2 for AVX-512."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(native, name)
        if not callable(attribute) or isinstance(attribute, type):
            return attribute

        def call(*args: Any) -> Any:
            native.limit_vectors(self.most)
            try:
                return attribute(*args)
            finally:
                native.limit_vectors(2)

        return call


def lesser_kernels() -> list[Any]:
    """Return the native kernel without vectors and, where the processor has more than AVX2, with AVX2 alone."""
    if native is None:
        return []
    return [WithVectors(most) for most in range(native.vectors_in_use())]


needs_native = pytest.mark.skipif(native is None, reason="the native kernel is not built here")
IMPLEMENTATIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(native, id="native", marks=needs_native),
    *(pytest.param(kernel, id=f"native-{('plain', 'avx2')[kernel.most]}") for kernel in lesser_kernels()),
]
PRESENT = [reference] if native is None else [reference, native, *lesser_kernels()]
