"""The data module that scvi-tools trains from: SCVI by registry, LDVAE by module, and the library prior."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from cellmill.errors import ConfigError
from cellmill.loader import Loader
from cellmill.loader.scvi import DataModule
from cellmill.mixture import Component, Mixture, Split

scvi = pytest.importorskip("scvi")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def two_splits(atlas):
    mix = Mixture([Component("c", atlas)], split=Split(train=0.7, validation=0.3, test=0))
    return mix, mix.with_split("validation")


OPTIONS = {"accelerator": "cpu", "enable_progress_bar": False, "check_val_every_n_epoch": 1}


def test_batches_are_what_scvi_reads(atlas):
    train, validation = two_splits(atlas)
    panel = atlas.gene_ids[:50]
    data = DataModule(train, validation, genes=panel, batch_key="study", labels_key="cell_type", batch_size=64)
    assert (data.n_vars, data.n_batch, data.n_labels) == (50, 3, len(data.labels_mapping))
    assert data.n_obs == 300
    seen = 0
    for batch in data.train_dataloader():
        assert batch["X"].dtype == torch.float32
        assert batch["X"].shape == (len(batch["batch"]), 50)
        assert batch["batch"].dtype == batch["labels"].dtype == torch.int64
        assert batch["batch"].shape == batch["labels"].shape == (len(batch["X"]), 1)
        seen += len(batch["X"])
    assert seen == data.n_train
    inference = list(data.inference_dataloader(atlas, batch_size=100))
    rows = np.arange(300)
    assert np.array_equal(torch.cat([b["X"] for b in inference]).numpy(), atlas.read_dense(rows, genes=panel))
    names = data.batch_labels[torch.cat([b["batch"] for b in inference]).numpy().ravel()]
    assert names.tolist() == atlas.column("study").to_pylist()
    names = data.labels_mapping[torch.cat([b["labels"] for b in inference]).numpy().ravel()]
    assert names.tolist() == atlas.column("cell_type").to_pylist()


def test_scvi_trains_from_the_registry_and_loads_again(atlas, tmp_path):
    train, validation = two_splits(atlas)
    data = DataModule(train, validation, batch_key="study", labels_key="cell_type", batch_size=64)
    model = scvi.model.SCVI(registry=data.registry, n_hidden=16, n_latent=4)
    model.train(max_epochs=2, datamodule=data, **OPTIONS)
    assert model.history["elbo_validation"].shape[0] == 2
    assert np.isfinite(model.history["elbo_train"].to_numpy(dtype=float)).all()
    latent = model.get_latent_representation(dataloader=data.inference_dataloader(atlas))
    assert latent.shape == (300, 4)
    assert model.get_var_names().tolist() == list(data.gene_ids)
    model.save(str(tmp_path / "model"), datamodule=data)
    again = scvi.model.SCVI.load(str(tmp_path / "model"), adata=False, accelerator="cpu")
    assert np.allclose(again.get_latent_representation(dataloader=data.inference_dataloader(atlas)), latent, atol=1e-5)


def test_scvi_trains_without_batches_labels_and_validation(atlas):
    data = DataModule(atlas, batch_size=64)
    model = scvi.model.SCVI(registry=data.registry, n_hidden=16, n_latent=4)
    model.train(max_epochs=1, datamodule=data, **OPTIONS)
    assert np.isfinite(model.history["elbo_train"].to_numpy(dtype=float)).all()


def test_ldvae_trains_by_module_plan_and_trainer(atlas):
    train, validation = two_splits(atlas)
    data = DataModule(train, validation, genes=atlas.gene_ids[:100], batch_key="study", batch_size=64)
    module = scvi.module.LDVAE(
        n_input=data.n_vars,
        n_batch=data.n_batch,
        n_latent=5,
        library_log_means=data.library_log_means(),
        library_log_vars=data.library_log_vars(),
    )
    plan = scvi.train.TrainingPlan(module, lr=5e-3)
    plan.n_obs_training, plan.n_obs_validation = data.n_train, data.n_val
    trainer = scvi.train.Trainer(max_epochs=4, devices=1, **OPTIONS)
    trainer.fit(plan, datamodule=data)
    losses = trainer.logger.history["elbo_train"].to_numpy(dtype=float).ravel()
    assert losses[-1] < losses[0]


def test_training_is_the_same_twice(atlas):
    train, validation = two_splits(atlas)

    def elbo():
        torch.manual_seed(0)
        data = DataModule(train, validation, batch_key="study", batch_size=64, seed=1)
        model = scvi.model.SCVI(registry=data.registry, n_hidden=8, n_latent=2)
        model.train(max_epochs=2, datamodule=data, **OPTIONS)
        return model.history["elbo_train"].to_numpy(dtype=float)

    assert np.array_equal(elbo(), elbo())


@pytest.mark.parametrize("n_panel", [None, 60])
def test_the_library_prior_is_what_scvi_computes_in_memory(atlas, n_panel):
    panel = None if n_panel is None else atlas.gene_ids[10 : 10 + n_panel]
    mix, _ = two_splits(atlas)
    data = DataModule(mix, genes=panel, batch_key="study")
    adata = atlas.to_anndata(data.train_plan.rows())
    if panel is not None:
        adata = adata[:, list(panel)].copy()
    scvi.model.SCVI.setup_anndata(adata, batch_key="study")
    manager = scvi.model.SCVI(adata).adata_manager
    means, variances = scvi.model._utils._init_library_size(manager, data.n_batch)
    assert data.library_log_means().shape == (1, 3)
    assert np.allclose(data.library_log_means(), means, rtol=1e-5)
    assert np.allclose(data.library_log_vars(), variances, rtol=1e-4)


def test_units_are_refused_with_what_to_do(atlas):
    mix = Mixture([Component("c", atlas)], units={"kind": "chunks", "cells": 4})
    with pytest.raises(ConfigError, match=r"shown single cells.*Leave `units` out"):
        DataModule(mix)
    with pytest.raises(ConfigError, match="expected a plan of single cells"):
        DataModule(Loader(mix).plan)


def test_a_last_batch_of_one_or_two_cells_is_left_out(atlas):
    for n, steps, seen in ((129, 2, 128), (130, 2, 128), (131, 3, 131)):
        data = DataModule(Mixture([Component("c", atlas, choose=n)]), batch_size=64)
        batches = list(data.train_dataloader())
        assert (len(batches), sum(len(b["X"]) for b in batches)) == (steps, seen)


def test_cells_without_a_label_are_unknown_and_without_a_batch_refused(tiny_h5ad, tmp_path):
    from cellmill.ingest import build

    one = tiny_h5ad("one", obs={"kind": ["a", "b"] * 30})
    two = tiny_h5ad("two", seed=1, obs={"other": ["x"] * 60})
    store = build(tmp_path / "both.mill", [one.path, two.path], vocabulary="union")
    data = DataModule(store, labels_key="kind", batch_size=60)
    assert data.labels_mapping.tolist() == ["a", "b", "unknown"]
    labels = torch.cat([b["labels"] for b in data.inference_dataloader()]).ravel()
    assert np.bincount(labels).tolist() == [30, 30, 60]
    with pytest.raises(ConfigError, match="60 cells have no batch"):
        DataModule(store, batch_key="kind")
    with pytest.raises(ConfigError, match="Did you mean 'kind'"):
        DataModule(store, batch_key="kinds")
    known = DataModule(Mixture([Component("c", store, where="other IS NULL")]), batch_key="kind")
    with pytest.raises(ConfigError, match="not among the 2 of the model"):
        list(known.inference_dataloader(store))


@pytest.mark.parametrize(("world_size", "n_steps"), [(1, 9), (2, 8)])
def test_a_last_batch_too_small_for_every_rank_is_dropped(atlas, monkeypatch, world_size, n_steps):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    data = DataModule(atlas, genes=atlas.gene_ids[:5], batch_size=37)  # 4 cells are left over
    assert len(data.train_dataloader()) == n_steps
