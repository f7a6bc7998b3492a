"""The loader as a LightningDataModule (floor 6, loader). The one place that imports Lightning for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellmill.errors import MissingDependencyError, StateMismatchError
from cellmill.loader.axis import Missing
from cellmill.loader.epochs import EpochLoader
from cellmill.loader.loader import Loader, Source, place_in_world, plan_of
from cellmill.loader.obs import ObsWanted
from cellmill.loader.schedule import Last
from cellmill.mixture import Order, Plan, UnitPlan, Units
from cellmill.tokens import Batch, Recipe

try:
    from lightning.pytorch import LightningDataModule
except ModuleNotFoundError as error:
    raise MissingDependencyError("lightning", extra="scvi", needed_for="cellmill.lightning.DataModule") from error

__all__ = ["DataModule"]


class DataModule(LightningDataModule):  # type: ignore[misc]  # Lightning is not typed here
    """Training and validation batches for a Lightning trainer.

    Epoch e of training has the order of epoch e, whatever was run before: a resumed trainer goes on exactly, also from
    a checkpoint in the middle of an epoch. Validation is read in the order of the stores. Under DDP each rank gets its
    slice of every batch.

    Parameters
    ----------
    train, validation
        Mixture, Plan or Store each; no validation when None.
    batch_size, tokens, obs, seed, order, last, prefetch, threads
        As in `Loader`. The last batch of validation is always kept.
    units, downsample
        As in `Loader`, for training and validation; the units of the mixtures when None. Batch sizes, epochs and
        `n_train` count units then.

    Examples
    --------
    >>> data = DataModule(mix, mix.with_split("validation"), batch_size=512)  # doctest: +SKIP
    >>> trainer.fit(model, datamodule=data)  # doctest: +SKIP
    """

    def __init__(
        self,
        train: Source,
        validation: Source | None = None,
        *,
        batch_size: int = 512,
        tokens: Recipe | None = None,
        obs: ObsWanted = (),
        seed: int = 0,
        order: str | Order = "exact",
        last: Last = "keep",
        prefetch: int | None = None,
        threads: int = 0,
        units: Units | None = None,
        downsample: int | None = None,
    ) -> None:
        super().__init__()
        self.train_plan: Plan | UnitPlan = plan_of(train, units)
        self.validation_plan: Plan | UnitPlan | None = None if validation is None else plan_of(validation, units)
        self.batch_size = batch_size
        self._seed = seed
        self._train_options: dict[str, Any] = {"order": order, "last": last, "obs": obs, "tokens": tokens}
        self._options: dict[str, Any] = {
            "batch_size": batch_size, "seed": seed, "prefetch": prefetch, "threads": threads, "downsample": downsample,
        }  # fmt: skip
        self._train_loader: Loader | None = None

    def __str__(self) -> str:  # Lightning's own takes a batch out of each loader and asks it what it is
        return f"DataModule({self.n_train:,} for training, {self.n_val:,} for validation)"

    __repr__ = __str__

    @property
    def n_train(self) -> int:
        """Cells (or units) presented in one epoch of training."""
        return self.train_plan.n_draws

    @property
    def n_val(self) -> int:
        """Cells (or units) of validation; 0 when there is none."""
        return 0 if self.validation_plan is None else self.validation_plan.n_draws

    def train_dataloader(self) -> EpochLoader[Any]:
        """Return the training batches of the trainer's current epoch."""
        loader = Loader(self.train_plan, **self._train_options, **self._options)
        self._train_loader = loader
        return EpochLoader(loader, epoch=self._current_epoch, convert=self.convert)

    def val_dataloader(self) -> EpochLoader[Any] | list[Any]:
        """Return the validation batches; an empty list, as Lightning wants it, when there is none."""
        if self.validation_plan is None:
            return []
        return EpochLoader(self._validation_loader(self.validation_plan), epoch=_always_zero, convert=self.convert)

    def convert(self, batch: Batch) -> Any:
        """Return what the model is handed for a batch; the batch itself here."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with: hash of the plan, and seed."""
        return {"plan": self.train_plan.hash, "seed": self._seed}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Check that a checkpoint belongs to these cells.

        Raises
        ------
        StateMismatchError
            When the checkpoint was made with another plan or seed.
        """
        mine = self.state_dict()
        for key, value in mine.items():
            if state_dict.get(key) != value:
                raise StateMismatchError(
                    f"this checkpoint belongs to another run: {key} was {state_dict.get(key)}, is {value}. "
                    "Train it on with the data it began with, or start anew"
                )

    def _current_epoch(self) -> int:
        return 0 if self.trainer is None else int(self.trainer.current_epoch)

    def _validation_loader(self, plan: Plan | UnitPlan, missing: Missing = "refuse") -> Loader:
        """Cells as they lie, all of them; where ranks would be left without a cell, a slightly smaller batch helps."""
        _, world_size = place_in_world(None, None)
        size = self.batch_size
        while size > world_size and 0 < plan.n_draws % size < world_size:
            size -= 1
        options = {**self._train_options, **self._options, "order": "stored", "last": "keep", "batch_size": size}
        return Loader(plan, **options, missing_genes=missing)


def _always_zero() -> int:
    return 0
