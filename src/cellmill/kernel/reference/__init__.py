"""The kernel in plain NumPy: the oracle of the native one, and its fallback (floor 1, kernel).

Same functions, same arguments, same bytes and numbers as `_native`; `cellmill.kernel` checks arguments and raises.
Knows nothing of the native module, of files, or of threads (the argument is taken and ignored).
"""

from __future__ import annotations

from cellmill.kernel.reference.codec import encode
from cellmill.kernel.reference.gather import fingerprint, gather, gather_dense
from cellmill.kernel.reference.random import keyed_u64, mix64, permute

__all__ = ["encode", "fingerprint", "gather", "gather_dense", "keyed_u64", "mix64", "permute"]
