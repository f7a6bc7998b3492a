"""Every error that cellmill raises on purpose (floor 0).

The tree; the builtin in brackets is inherited too, so that `except ValueError` works as a caller expects::

    CellmillError
    ├── InputError (ValueError)            wrong use or wrong input; the command line exits with 2
    │   ├── ConfigError                    a YAML file or an argument says something that cannot be meant
    │   ├── FormatError                    a file is truncated, foreign, or not what its name says
    │   ├── BadInputsError                 several inputs that cannot be used, each with its reason
    │   ├── NotRawCountsError              values that are not whole, not finite or negative
    │   ├── GeneMatchError                 too few genes of a file are in the vocabulary
    │   ├── VocabularyError                a vocabulary that is malformed or not the one expected
    │   ├── QueryError                     a `where` or SQL text that DuckDB refuses
    │   ├── MixtureError                   shares, quotas or splits that cannot be met
    │   └── NotFoundError (FileNotFoundError)   nothing at this path
    ├── StoreError
    │   ├── CorruptStoreError (ValueError) bytes of a store that contradict its checksums or its format
    │   ├── FrameError (ValueError)        one cell's frame that cannot be decoded
    │   ├── StoreExistsError (FileExistsError)
    │   └── StoreLockedError (BlockingIOError)  somebody else is writing here
    ├── StateMismatchError (ValueError)    a resumed run whose store, plan or vocabulary has changed
    ├── DivergedError (ArithmeticError)    a training whose numbers are finite no more
    ├── RemoteError (OSError)              a server that does not give what it should; the message names the URL
    │   ├── RemoteDeniedError (PermissionError)   it wants other credentials, or some
    │   ├── RemoteTimeoutError (TimeoutError)     it does not answer in time, again and again
    │   └── RemoteChangedError             an object that was replaced while it was being read
    ├── CacheError (OSError)               a folder for what was fetched that cannot be used
    ├── DiskSpaceError (OSError)           not enough room, before starting or in the middle
    └── MissingDependencyError (ImportError)    an optional dependency; the message names the extra

A message says what was expected, what was found, where (file, matrix, row, column), and what to do next.
This module knows nothing of the rest of the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BadInputsError",
    "CacheError",
    "CellmillError",
    "ConfigError",
    "CorruptStoreError",
    "DiskSpaceError",
    "DivergedError",
    "FormatError",
    "FrameError",
    "GeneMatchError",
    "InputError",
    "MissingDependencyError",
    "MixtureError",
    "NotFoundError",
    "NotRawCountsError",
    "QueryError",
    "RemoteChangedError",
    "RemoteDeniedError",
    "RemoteError",
    "RemoteTimeoutError",
    "StateMismatchError",
    "StoreError",
    "StoreExistsError",
    "StoreLockedError",
    "VocabularyError",
    "nearest",
]


class CellmillError(Exception):
    """Root of all errors raised on purpose by cellmill.

    Attributes
    ----------
    exit_code : int
        What the command line returns for it: 2 for wrong use or wrong input, 1 for anything else.
    """

    exit_code = 1


class InputError(CellmillError, ValueError):
    """Wrong use or wrong input: something that the caller can mend."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration file or argument that cannot be meant as it stands."""


class FormatError(InputError):
    """A file that is truncated, foreign, or not what its name says."""


class BadInputsError(InputError):
    """Several inputs that cannot be used; the message lists each with its reason."""


class NotRawCountsError(InputError):
    """Stored values that are not raw counts: not whole, not finite, or negative."""


class GeneMatchError(InputError):
    """Too few genes of a file are found in the vocabulary."""


class VocabularyError(InputError):
    """A gene vocabulary that is malformed, or not the one that is expected."""


class QueryError(InputError):
    """A `where` clause or an SQL text that cannot be run over obs."""


class MixtureError(InputError):
    """Shares, quotas or splits that cannot be met."""


class NotFoundError(InputError, FileNotFoundError):
    """Nothing lies at the path that was given."""


class StoreError(CellmillError):
    """Something is wrong with a store, not with what was asked of it."""


class CorruptStoreError(StoreError, ValueError):
    """Bytes of a store contradict its checksums or its format."""


class FrameError(StoreError, ValueError):
    """The frame of one cell cannot be decoded."""


class StoreExistsError(StoreError, FileExistsError):
    """A store lies where a new one should be written."""

    exit_code = 2


class StoreLockedError(StoreError, BlockingIOError):
    """Another process is writing to this store."""


class StateMismatchError(CellmillError, ValueError):
    """A saved state belongs to another store, plan or vocabulary."""

    exit_code = 2


class DivergedError(CellmillError, ArithmeticError):
    """A training whose loss or parameters are finite no more."""

    exit_code = 2


class RemoteError(CellmillError, OSError):
    """A server cannot be reached, or does not give what was asked for; the message names the URL."""


class RemoteDeniedError(RemoteError, PermissionError):
    """A server refuses: credentials are missing, wrong, or not enough."""

    exit_code = 2


class RemoteTimeoutError(RemoteError, TimeoutError):
    """A server does not answer in time, however often it is asked."""


class RemoteChangedError(RemoteError):
    """An object was replaced after it was opened; the message names both ETags."""


class CacheError(CellmillError, OSError):
    """The folder for what was fetched cannot be made or written to."""

    exit_code = 2


class DiskSpaceError(CellmillError, OSError):
    """Not enough room on the disk; raised before work starts."""


class MissingDependencyError(CellmillError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed. "
            f"Install it, in the folder of cellmill's source, with: {self.install_line(extra)}"
        )

    @staticmethod
    def install_line(extra: str) -> str:
        """Return the command that installs an extra; it is given in the folder of cellmill's source."""
        return f"pip install -c constraints.txt '.[{extra}]'"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" with the nearest of `choices`, or an empty string when none is near.

    Examples
    --------
    >>> nearest("tisue", ["tissue", "assay"])
    " Did you mean 'tissue'?"
    """
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""
