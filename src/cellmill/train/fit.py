"""The loop (floor 7): Lightning's Trainer over our data module, quiet, resumable to the bit.

Knows torch, Lightning and scvi-tools' training plan; must not know what a run folder holds beyond one checkpoint file.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from scvi.module import LDVAE
from scvi.train import TrainingPlan

from cellmill.errors import DivergedError
from cellmill.events import emit
from cellmill.kernel import derive_key
from cellmill.loader.scvi import DataModule
from cellmill.storage import sync_file, sync_folder
from cellmill.train.config import RunConfig
from cellmill.train.record import Row

__all__ = ["Fitted", "build_training_plan", "fit", "measure", "quiet", "torch_seed"]

SMALL_BATCH_NUMBERS = 400_000
_TERMINATED = 128 + signal.SIGTERM  # what shells expect


@dataclass(frozen=True)
class Fitted:
    """What came of the loop.

    Attributes
    ----------
    history : list of dict
        One row per epoch, also of those that an earlier sitting trained.
    device : str
    """

    history: list[Row]
    device: str


def torch_seed(seed: int, purpose: str, *parts: int) -> int:
    """Return a seed for torch's generator, in 0..2^63-1, keyed by what it is for."""
    return derive_key(seed, purpose, *parts) >> 1


def build_training_plan(module: LDVAE, config: RunConfig, *, n_obs: int) -> TrainingPlan:
    """Return the training plan of scvi-tools with the configuration's optimiser: Adam, eps 0.01."""
    plan = TrainingPlan(
        module,
        optimizer="Adam",
        lr=config.lr,
        weight_decay=config.weight_decay,
        eps=0.01,
        n_epochs_kl_warmup=config.kl_warmup_epochs,
    )
    plan.n_obs_training = n_obs
    return plan


def fit(
    module: LDVAE, data: DataModule, config: RunConfig, *, checkpoint: Path, on_epoch: Callable[[list[Row]], None]
) -> Fitted:
    """Train `module` in place for the configured epochs, from `checkpoint` on when that file exists.

    After each epoch the whole state is written to `checkpoint` in one rename, so that killing the process at any moment
    loses at most one epoch. Dropout and posterior draws of epoch e come from a generator seeded by (seed, e), and the
    order of its cells from the plan, (seed, e): the weights are those of an uninterrupted run, bit for bit, on the same
    device and number of threads.

    Parameters
    ----------
    on_epoch : callable
        Given the history after each epoch, before the checkpoint is written.
    """
    keeper = _Keeper(config, data, checkpoint, on_epoch)
    plan = build_training_plan(module, config, n_obs=data.n_train)
    with quiet(), _threads_for(config.batch_size * data.n_vars), torch.random.fork_rng(devices=_cuda_devices()):
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=config.epochs,
            default_root_dir=str(checkpoint.parent),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[keeper],
        )
        resumed = str(checkpoint) if checkpoint.exists() else None
        try:
            with _signals_as_before():
                trainer.fit(plan, datamodule=data, ckpt_path=resumed, weights_only=False)
        except ValueError as error:
            if "invalid values" not in str(error):  # how torch's distributions say that a parameter is no number
                raise
            raise _diverged(config, len(keeper.history)) from None
    module.eval()
    return Fitted(keeper.history, str(plan.device))


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process as they do outside Lightning.

    Lightning waits with SIGTERM for the end of a batch and then exits with code 0, so that whoever asked believes the
    work done; an interrupt becomes an exit with 1. A handler that stands before is called at once, so ours ends the
    process: the checkpoint is atomic, nothing is lost but the epoch.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    interrupt = signal.getsignal(signal.SIGINT)
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except SIGTERMException:  # a handler of the host's was called and came back
        raise SystemExit(_TERMINATED) from None
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, interrupt)  # Lightning ignores it from the first one on
        raise KeyboardInterrupt from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _diverged(config: RunConfig, epoch: int) -> DivergedError:
    return DivergedError(
        f"{config.title}: training diverged in epoch {epoch} (a loss or a parameter is not a finite number) with "
        f"lr={config.lr} and batch_size={config.batch_size}. Try a smaller learning rate, for example "
        f"{config.lr / 4:.2g}; the epochs before are in {config.out / 'history.csv'}."
    )


@contextlib.contextmanager
def _threads_for(batch_numbers: int) -> Iterator[None]:
    """Let torch work on one thread while a batch is small (`batch_numbers`: cells times genes).

    A second thread gains nothing on some hundred thousand numbers, and on a busy machine the two wait for each other:
    training then takes ten times as long. It also makes weights the same on machines with more cores.
    """
    threads = torch.get_num_threads()
    if batch_numbers <= SMALL_BATCH_NUMBERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


class _Keeper(pl.Callback):  # type: ignore[misc]  # Lightning carries no types here
    """Seeds each epoch, measures validation, keeps the history and the checkpoint, tells how far it is."""

    def __init__(
        self, config: RunConfig, data: DataModule, checkpoint: Path, on_epoch: Callable[[list[Row]], None]
    ) -> None:
        self.history: list[Row] = []
        self._config = config
        self._data = data
        self._checkpoint = checkpoint
        self._on_epoch = on_epoch
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        done, total = len(self.history), self._config.epochs
        if 0 < done < total:
            title = f"training {self._config.title}"
            emit(title, message=f"{title}: continues from epoch {done + 1} of {total}")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # Not at the start of the epoch: whether Lightning makes the data iterator, which draws from the generator,
        # before or after that depends on whether the run was resumed.
        if batch_idx == 0:
            self._started = time.monotonic()
            torch.manual_seed(torch_seed(self._config.seeds.init, "epoch", trainer.current_epoch))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: TrainingPlan) -> None:
        epoch = trainer.current_epoch
        metrics = trainer.callback_metrics
        if not math.isfinite(float(metrics["elbo_train"])):
            raise _diverged(self._config, epoch)
        row: Row = {
            "epoch": epoch,
            "elbo_train": float(metrics["elbo_train"]),
            "reconstruction_loss_train": float(metrics["reconstruction_loss_train"]),
            "elbo_validation": None,
            "reconstruction_loss_validation": None,
            "kl_weight": float(pl_module.kl_weight),
            "seconds": time.monotonic() - self._started,
        }
        if self._is_due(epoch):
            seed = torch_seed(self._config.seeds.init, "validation", epoch)
            measured = measure(pl_module.module, self._data, device=pl_module.device, seed=seed)
            row["elbo_validation"], row["reconstruction_loss_validation"] = measured
        self.history.append(row)
        self._on_epoch(self.history)
        _save(trainer, self._checkpoint)
        emit(f"training {self._config.title}", done=epoch + 1, total=self._config.epochs, unit="epochs")

    def _is_due(self, epoch: int) -> bool:
        last = epoch + 1 == self._config.epochs
        return self._data.n_val > 0 and (last or (epoch + 1) % self._config.validation_every == 0)


def _save(trainer: pl.Trainer, path: Path) -> None:
    """Write the trainer's state to `path`; a reader, and a restart, see the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    trainer.save_checkpoint(temporary)
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def measure(module: LDVAE, data: DataModule, *, device: torch.device, seed: int) -> tuple[float, float]:
    """Return (negative ELBO, reconstruction loss) per validation cell, in evaluation mode.

    One posterior draw for each cell. The ELBO has both KL terms in full, without warm-up, as `elbo_validation` of
    scvi-tools has. The same seed gives the same draws. The module is left in the mode that it was in.
    """
    was_training = module.training
    reconstruction, kl, n_cells = 0.0, 0.0, 0
    module.eval()
    with torch.random.fork_rng(devices=_cuda_devices()), torch.no_grad():
        torch.manual_seed(seed)
        for batch in data.val_dataloader():
            tensors = {name: value.to(device) for name, value in batch.items()}
            losses = module(tensors)[2]
            reconstruction += float(losses.reconstruction_loss_sum)
            kl += float(losses.kl_local_sum)
            n_cells += len(tensors["X"])
    module.train(was_training)
    return (reconstruction + kl) / n_cells, reconstruction / n_cells


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice on hardware, workers and checkpoints away; its errors still come through."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
