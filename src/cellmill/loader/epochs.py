"""A loader that a Lightning trainer drives (floor 6, loader): one epoch for each iteration, resumable within it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from cellmill.loader.loader import Loader
from cellmill.tokens import Batch

__all__ = ["EpochLoader"]

Made = TypeVar("Made")


class EpochLoader(Generic[Made]):
    """Each iteration runs over the epoch that the trainer is in, from its beginning; or from where a state says.

    Parameters
    ----------
    loader
        A loader of one epoch per iteration.
    epoch
        Returns the epoch to run; asked when the first batch is.
    convert
        What to make of each batch.
    """

    def __init__(self, loader: Loader, *, epoch: Callable[[], int], convert: Callable[[Batch], Made]) -> None:
        self.loader = loader
        self._epoch = epoch
        self._convert = convert
        self._resume: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Steps of a whole epoch, also where an iteration goes on in the middle of one."""
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[Made]:
        # a generator: Lightning calls iter() before it knows the epoch, and next() after
        epoch, n_draws = self._epoch(), self.loader.plan.n_draws
        resume, self._resume = self._resume, None
        self.loader.set_epoch(epoch)
        if resume is not None and epoch * n_draws < resume["position"] < (epoch + 1) * n_draws:
            self.loader.load_state_dict(resume)
        for batch in self.loader:
            yield self._convert(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loader; Lightning saves it with its checkpoints."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch, if the state lies in the middle of the one that comes.

        Raises
        ------
        StateMismatchError
            When the state belongs to another plan, seed or order.
        """
        self.loader.load_state_dict(state)
        self._resume = dict(state)
