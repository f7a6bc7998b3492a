"""The plan as other processes get it (floor 4): a file beside the pieces, and its hash by another way."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

from cellmill.errors import InputError
from cellmill.ingest.plan import BuildPlan
from cellmill.storage import hash_bytes, write_atomic
from cellmill.store.writer import own_version

__all__ = ["WorkOrder"]

_NAME = "order"


@dataclass(frozen=True)
class WorkOrder:
    """Where the plan lies that other processes work on; small, sent to each of them.

    Attributes
    ----------
    place : str
        The folder of `Staging`, absolute.
    folder : str
        From which the inputs' paths are to be seen.
    hash : str
        xxh3-128 of the file of the plan; one that lies there by chance is not opened.
    threads : int
        Threads of the kernel in each process.
    """

    place: str
    folder: str
    hash: str
    threads: int
    cellmill: str

    @classmethod
    def write(cls, plan: BuildPlan, place: Path, *, threads: int) -> WorkOrder:
        """Write the plan to `place`."""
        raw = pickle.dumps(replace(plan, refused=(), skipped=()), protocol=pickle.HIGHEST_PROTOCOL)
        write_atomic(place / _NAME, raw)
        return cls(str(place.resolve()), str(Path.cwd()), hash_bytes(raw), threads, own_version())

    def read(self) -> BuildPlan:
        """Return the plan.

        Raises
        ------
        InputError
            When this process does not see the folder, sees another plan there, or has another version of cellmill.
        """
        where = f"process {os.getpid()} on {os.uname().nodename}"
        if self.cellmill != own_version():
            raise InputError(
                f"{where} has cellmill {own_version()}, and the build was started by {self.cellmill}: install the "
                "same version everywhere."
            )
        try:
            raw = (Path(self.place) / _NAME).read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.place}: {where} cannot read this folder ({error.strerror}). Build where all workers see the "
                "same folders under the same names, as on the shared file system of a cluster."
            ) from None
        if hash_bytes(raw) != self.hash:
            raise InputError(f"{self.place}: another build has begun here since; {where} has nothing to do with it.")
        plan: BuildPlan = pickle.loads(raw)  # the very bytes that the sender of this order wrote
        return plan
