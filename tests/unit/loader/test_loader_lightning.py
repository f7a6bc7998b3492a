"""The LightningDataModule: order by epoch, exact resumption, refusal of foreign checkpoints."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from cellmill.errors import StateMismatchError
from cellmill.loader import Loader
from cellmill.loader.lightning import DataModule
from cellmill.mixture import Chunks, Component, Mixture, Split
from cellmill.tokens import Dense


class Recorder(LightningModule):
    """A linear model that notes which cells it saw."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(n_genes, 1)
        self.seen: list[tuple[int, tuple[int, ...]]] = []
        self.validated: list[tuple[int, ...]] = []

    def training_step(self, batch, index):
        del index
        self.seen.append((self.current_epoch, tuple(batch.cells.tolist())))
        return self.layer(batch.values.log1p()).square().mean()

    def validation_step(self, batch, index):
        del index
        self.validated.append(tuple(batch.cells.tolist()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        del args
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def fit(model, data, folder, *, epochs, callbacks=(), **kw):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, callbacks=list(callbacks), num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        )  # fmt: skip
        trainer.fit(model, datamodule=data, **kw)
    return trainer


def mixture(atlas):
    return Mixture([Component("c", atlas)], split=Split(train=0.6, validation=0.2, test=0.2))


def make(atlas, **kw):
    mix = mixture(atlas)
    return DataModule(mix, mix.with_split("validation"), batch_size=32, tokens=Dense(), **kw)


def test_each_epoch_has_its_own_order_and_validation_always_the_same(atlas, tmp_path):
    data = make(atlas, seed=7)
    model = Recorder(atlas.n_genes)
    fit(model, data, tmp_path, epochs=3)
    loader = Loader(mixture(atlas), batch_size=32, seed=7, epochs=3)
    assert [cells for _, cells in model.seen] == [tuple(batch.cells.tolist()) for batch in loader]
    assert [epoch for epoch, _ in model.seen] == [
        batch.epoch for batch in Loader(mixture(atlas), batch_size=32, epochs=3)
    ]
    n = len(model.validated) // 3
    assert model.validated[:n] == model.validated[n : 2 * n] == model.validated[2 * n :]
    assert sum(map(len, model.validated[:n])) == data.n_val


@pytest.mark.parametrize("moment", ["end of epoch", "middle of epoch"])
def test_a_resumed_trainer_goes_on_exactly(atlas, tmp_path, moment):
    data = make(atlas)
    steps = len(data.train_dataloader())
    torch.manual_seed(0)
    whole = Recorder(atlas.n_genes)
    fit(whole, data, tmp_path / "whole", epochs=3)
    if moment == "end of epoch":
        keep = ModelCheckpoint(tmp_path / "kept", filename="at", every_n_epochs=1, save_top_k=-1)
        stop = steps
    else:
        keep = ModelCheckpoint(tmp_path / "kept", filename="at", every_n_train_steps=steps + 2, save_top_k=-1)
        stop = steps + 2
    torch.manual_seed(0)
    first = Recorder(atlas.n_genes)
    with pytest.raises(BaseException):
        fit(first, make(atlas), tmp_path / "a", epochs=3, callbacks=[keep, StopAt(stop + 1)])
    checkpoint = sorted((tmp_path / "kept").glob("*.ckpt"))[0]
    second = Recorder(atlas.n_genes)
    fit(second, make(atlas), tmp_path / "b", epochs=3, ckpt_path=checkpoint)
    assert second.seen == whole.seen[stop:]
    assert torch.allclose(second.layer.weight, whole.layer.weight)


def test_a_trainer_is_handed_the_units_of_the_mixture(atlas, tmp_path):
    mix = mixture(atlas)
    mix.units = Chunks(cells=5, by=["study"])
    data = DataModule(mix, mix.with_split("validation"), batch_size=8, tokens=Dense(), downsample=10**9)
    model = Recorder(atlas.n_genes)
    fit(model, data, tmp_path, epochs=1)
    expected = [tuple(batch.cells.tolist()) for batch in Loader(mix, batch_size=8)]
    assert [cells for _, cells in model.seen] == expected
    assert len(expected[0]) == 40
    assert data.n_train == Loader(mix).plan.n_draws
    assert sum(map(len, model.validated)) == 5 * data.n_val
    assert data.state_dict()["plan"] != DataModule(mixture(atlas)).state_dict()["plan"]


def test_a_checkpoint_of_other_cells_is_refused(atlas, tmp_path):
    keep = ModelCheckpoint(tmp_path / "kept", filename="at", every_n_epochs=1)
    fit(Recorder(atlas.n_genes), make(atlas), tmp_path, epochs=1, callbacks=[keep])
    (checkpoint,) = (tmp_path / "kept").glob("*.ckpt")
    with pytest.raises(StateMismatchError, match="seed was 0, is 1"):
        fit(Recorder(atlas.n_genes), make(atlas, seed=1), tmp_path, epochs=2, ckpt_path=checkpoint)
