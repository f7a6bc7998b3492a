"""Under the Trainer of Hugging Face transformers: each cell once per epoch, and an exact resumption."""

from __future__ import annotations

import pytest
import torch

from cellmill.errors import ConfigError
from cellmill.loader import Loader
from cellmill.tokens import Dense

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class Model(torch.nn.Module):
    """A linear model that notes which cells it saw."""

    def __init__(self, n_genes):
        super().__init__()
        self.layer = torch.nn.Linear(n_genes, 1)
        self.seen = []

    def forward(self, values, cells):
        self.seen.append(tuple(cells.tolist()))
        return {"loss": self.layer(values).square().mean()}


def to_inputs(batch):
    return {"values": batch.values, "cells": batch.cells}


def trainer_of(store, folder, *, stop=None, workers=0):
    from cellmill.loader.accelerate import prepare

    class CellTrainer(transformers.Trainer):
        def get_train_dataloader(self):
            return prepare(self.train_dataset, self.accelerator, convert=to_inputs, num_workers=workers)

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            control.should_training_stop = state.global_step == stop
            return control

    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=2, save_strategy="steps", save_steps=2, report_to=[], use_cpu=True,
        disable_tqdm=True, learning_rate=1e-4, logging_strategy="no",
    )  # fmt: skip
    loader = Loader(store, batch_size=64, tokens=Dense(transform="log1p_cp10k"), seed=2)
    return CellTrainer(Model(store.n_genes), arguments, train_dataset=loader, callbacks=[Stop()])


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_each_cell_once_per_epoch_and_exactly_the_rest(atlas, tmp_path, workers):
    expected = [tuple(batch.cells.tolist()) for batch in Loader(atlas, batch_size=64, seed=2, epochs=2)]
    whole = trainer_of(atlas, tmp_path / "whole", workers=workers)
    whole.train()
    assert whole.model.seen == expected
    first = trainer_of(atlas, tmp_path / "cut", stop=8)
    first.train()
    assert first.model.seen == expected[:8]
    second = trainer_of(atlas, tmp_path / "cut", workers=workers)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-8"))
    assert second.model.seen == expected[8:]
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loader_of_other_ranks_is_refused(atlas):
    from accelerate import Accelerator

    from cellmill.loader.accelerate import prepare

    accelerator = Accelerator(cpu=True)
    with pytest.raises(ConfigError, match="rank 1 of 2, the accelerator of process 0 of 1"):
        prepare(Loader(atlas, rank=1, world_size=2), accelerator)
    with pytest.raises(ConfigError, match="epochs=1, found 2"):
        prepare(Loader(atlas, epochs=2), accelerator)
