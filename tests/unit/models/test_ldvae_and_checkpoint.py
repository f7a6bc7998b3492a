"""The LDVAE is scvi-tools' own; saved models come back the same, and damaged ones do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scvi")

from cellmill.errors import ConfigError, FormatError, NotFoundError  # noqa: E402
from cellmill.models import LdvaeConfig, build_ldvae, load, save  # noqa: E402

GENES = [f"ENSG{i:011d}" for i in range(40)]
MEANS, VARIANCES = np.array([[5.0]]), np.array([[0.3]])


def counts_of(n_cells: int = 12, seed: int = 0) -> Any:
    return np.random.default_rng(seed).poisson(1.5, size=(n_cells, len(GENES))).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Any]:
    torch.manual_seed(0)
    config = LdvaeConfig(n_latent=4, n_hidden=16)
    module = build_ldvae(config, len(GENES), MEANS, VARIANCES)
    module.train()
    for seed in range(3):  # moves the running statistics of the batch norms away from their defaults
        forward(module, counts_of(seed=seed))
    module.eval()
    save(tmp_path / "model", module, config, GENES, {"plan": "abc"})
    return tmp_path / "model", module


def forward(module: Any, counts: Any) -> Any:
    x = torch.from_numpy(counts)
    tensors = {"X": x, "batch": torch.zeros((len(x), 1), dtype=torch.long), "labels": torch.zeros((len(x), 1))}
    return module(tensors)


def test_a_saved_model_comes_back_weight_for_weight(saved: tuple[Path, Any]) -> None:
    folder, module = saved
    loaded = load(folder)
    assert loaded.genes == tuple(GENES)
    assert loaded.meta == {"plan": "abc"}
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[name]), name


def test_reconstruction_is_the_decoder_of_scvi_tools_at_the_posterior_mean(saved: tuple[Path, Any]) -> None:
    folder, module = saved
    counts = counts_of(seed=9)
    inference, generative, _ = forward(module, counts)
    loaded = load(folder)
    np.testing.assert_allclose(loaded.latent(counts), inference["qz"].loc.detach(), rtol=1e-5, atol=1e-6)
    z = inference["qz"].loc
    outputs = module.generative(z, inference["library"], torch.zeros((len(z), 1), dtype=torch.long))
    np.testing.assert_allclose(loaded.reconstruct(counts), outputs["px"].scale.detach(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loaded.reconstruct(counts).sum(axis=1), 1.0, rtol=1e-5)
    assert generative["px"].scale.shape == counts.shape


def test_asking_and_loading_leave_torchs_generator_alone(saved: tuple[Path, Any]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    load(saved[0]).reconstruct(counts_of())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_library_prior_is_in_the_module(saved: tuple[Path, Any]) -> None:
    module = load(saved[0]).module
    assert float(module.library_log_means) == 5.0
    assert float(module.library_log_vars) == pytest.approx(0.3)
    assert not module.use_observed_lib_size


@pytest.mark.parametrize(
    ("means", "variances", "says"),
    [
        (np.zeros(1), np.ones((1, 1)), "shape"),
        (np.array([[np.nan]]), np.ones((1, 1)), "not finite"),
        (np.zeros((1, 1)), np.zeros((1, 1)), "above 0"),
    ],
)
def test_a_library_prior_that_cannot_be_meant_is_refused(means: Any, variances: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_ldvae(LdvaeConfig(), 5, means, variances)


def test_weights_with_a_flipped_bit_are_refused(saved: tuple[Path, Any]) -> None:
    path = saved[0] / "model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(bytes(blob))
    with pytest.raises(FormatError, match="not the weights"):
        load(saved[0])


def test_a_missing_file_and_a_foreign_card_are_told(saved: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"model\.json"):
        load(tmp_path / "nothing")
    card = saved[0] / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "format": 99}))
    with pytest.raises(FormatError, match="99"):
        load(saved[0])
    card.write_text("{")
    with pytest.raises(FormatError, match="not a model's card"):
        load(saved[0])


def test_counts_of_other_genes_are_refused(saved: tuple[Path, Any]) -> None:
    with pytest.raises(ConfigError, match="40 genes"):
        load(saved[0]).latent(counts_of()[:, :-1])
