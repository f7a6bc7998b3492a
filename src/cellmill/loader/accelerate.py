"""The loader as Hugging Face's Accelerate and Trainer take it (floor 6, loader). The one place that imports accelerate.

Left to itself, Accelerate reads an IterableDataset on the main process alone and hands out pieces, or lets every
process read all of it, and fills up the last step with cells that were there before. A loader knows its ranks: nothing
of that is wanted. Written against accelerate 1.15 (`DataLoaderShard`, `_is_accelerate_prepared`) and transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cellmill.errors import ConfigError, MissingDependencyError
from cellmill.loader.loader import Loader
from cellmill.tokens import Batch

try:
    from accelerate.data_loader import DataLoaderShard
except ModuleNotFoundError as error:
    raise MissingDependencyError("accelerate", extra="accelerate", needed_for="cellmill.accelerate") from error

__all__ = ["PreparedLoader", "prepare"]


def prepare(
    loader: Loader,
    accelerator: Any,
    *,
    convert: Callable[[Batch], Any] | None = None,
    num_workers: int = 0,
) -> PreparedLoader:
    """Return a loader that Accelerate leaves as it is: each process gets its slice of every step, each cell once.

    Parameters
    ----------
    loader
        A loader of one epoch per iteration. Each iteration of what is returned is one epoch, the next one.
    accelerator
        The Accelerator of this process; of a Trainer, `trainer.accelerator`.
    convert
        What to make of each batch, such as the dict that a model takes; the batch itself when None.
    num_workers
        Worker processes; 0 lets the loader's own thread read ahead.

    Raises
    ------
    ConfigError
        When rank or world size of the loader are not those of the accelerator, or it has several epochs.
    """
    schedule = loader.schedule
    mine, theirs = (schedule.rank, schedule.world_size), (accelerator.process_index, accelerator.num_processes)
    if mine != theirs:
        raise ConfigError(
            f"the loader is of rank {mine[0]} of {mine[1]}, the accelerator of process {theirs[0]} of {theirs[1]}: "
            "cells would be lost, or seen twice. Make the Accelerator first and give the loader no rank, or "
            "rank=accelerator.process_index, world_size=accelerator.num_processes"
        )
    if loader.epochs != 1:
        raise ConfigError(
            f"the training loop counts the epochs: expected a loader with epochs=1, found {loader.epochs}"
        )
    prepared = PreparedLoader(loader, device=accelerator.device, convert=convert, num_workers=num_workers)
    accelerator.prepare_data_loader(prepared)  # which notes it, for save_state and load_state, and changes nothing
    return prepared


class PreparedLoader(DataLoaderShard):  # type: ignore[misc]  # Accelerate is not typed here
    """One epoch for each iteration, resumable within it; made by `prepare`.

    It is ahead of the training loop by one batch, to know the last one. Its state is that of the batches that were
    handed out, and `accelerator.save_state` and `load_state` carry it.
    """

    _is_accelerate_prepared = True

    def __init__(
        self, loader: Loader, *, device: Any, convert: Callable[[Batch], Any] | None, num_workers: int
    ) -> None:
        super().__init__(
            loader, device=device, batch_size=None, num_workers=num_workers, collate_fn=convert or _as_it_is
        )
        self.loader = loader
        self.use_stateful_dataloader = True  # read by save_state and load_state only: whether there is a state
        self._resume: dict[str, Any] | None = None
        self._handed_out = 0

    def __len__(self) -> int:
        """Steps of a whole epoch, also where an iteration goes on in the middle of one."""
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        self._handed_out = 0
        for batch in super().__iter__():
            self._resume = None
            self._handed_out += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration run over an epoch; the rest of it, where a state lies in its middle."""
        super().set_epoch(epoch)
        self._handed_out = 0
        state, n_draws = self._resume, self.loader.plan.n_draws
        if state is not None and epoch * n_draws < state["position"] < (epoch + 1) * n_draws:
            self.loader.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches that were handed out; one that `Loader.load_state_dict` takes, too."""
        if self._resume is not None:
            return self._resume
        return self.loader.state_at(self._handed_out)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after a state, on any number of processes: in the middle of its epoch, or with the one after it.

        Raises
        ------
        StateMismatchError
            When the state belongs to other cells, another seed or order.
        """
        self.loader.load_state_dict(state)
        self._resume = dict(state)
        self.iteration = state["position"] // self.loader.plan.n_draws


def _as_it_is(batch: Batch) -> Batch:
    return batch
