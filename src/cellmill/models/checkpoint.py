"""Models on disk (floor 6): a folder with `model.safetensors` (weights) and `model.json` (what they mean).

Knows how to write, read and ask a trained model; must not know how it was trained. Imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, FormatError, MissingDependencyError, NotFoundError
from cellmill.models.ldvae import LdvaeConfig, build_ldvae
from cellmill.storage import hash_bytes, write_atomic

try:
    import torch
    from safetensors.torch import load as load_weights
    from safetensors.torch import save as save_weights
except ModuleNotFoundError as error:
    raise MissingDependencyError(error.name or "torch", extra="torch", needed_for="a model's checkpoint") from error

if TYPE_CHECKING:
    from scvi.module import LDVAE

__all__ = ["CHECKPOINT_FORMAT", "LoadedModel", "load", "save"]

CHECKPOINT_FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LoadedModel:
    """A trained model, ready to be asked; it is in evaluation mode.

    Attributes
    ----------
    genes : tuple of str
        Gene ids, in the order of the columns of X.
    config : LdvaeConfig
    module : scvi.module.LDVAE
    meta : dict
        What training wrote beside the weights.
    hash : str
        xxh3-128 of the weights file.
    """

    genes: tuple[str, ...]
    config: LdvaeConfig
    module: LDVAE
    meta: dict[str, Any]
    hash: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def latent(self, counts: F32, *, batch: npt.NDArray[np.int64] | None = None) -> F32:
        """Return the mean of the posterior of z, float32 (n_cells, n_latent).

        Parameters
        ----------
        counts : float32 (n_cells, n_genes)
            Raw counts in the order of `genes`.
        batch : int64 (n_cells,), optional
            Batch code of each cell; 0 when not given.
        """
        z_BL = self._posterior(counts, batch)[0]
        result: F32 = z_BL.cpu().numpy()
        return result

    def reconstruct(self, counts: F32, *, batch: npt.NDArray[np.int64] | None = None) -> F32:
        """Return the expected share of each gene among a cell's counts, float32 (n_cells, n_genes); rows sum to 1.

        It is the decoder (`px_scale`) at the mean of the posterior of z, not at a draw from it, so that the same cell
        always gives the same answer. Parameters as for `latent`.
        """
        z_BL, code_B1 = self._posterior(counts, batch)
        with torch.inference_mode():
            library_B1 = torch.zeros((len(z_BL), 1), device=self.device)
            scale_BG = self.module.decoder(self.module.dispersion, z_BL, library_B1, code_B1)[0]
        result: F32 = scale_BG.cpu().numpy()
        return result

    def _posterior(self, counts: F32, batch: npt.NDArray[np.int64] | None) -> tuple[torch.Tensor, torch.Tensor]:
        if counts.ndim != 2 or counts.shape[1] != len(self.genes):
            raise ConfigError(f"counts have the shape {counts.shape}: expected (n_cells, {len(self.genes)} genes)")
        codes = np.zeros(len(counts), dtype=np.int64) if batch is None else batch
        with torch.inference_mode():
            x_BG = torch.from_numpy(np.ascontiguousarray(counts, dtype=np.float32)).to(self.device)
            code_B1 = torch.from_numpy(codes).to(self.device).unsqueeze(1)
            encoder = self.module.z_encoder  # its parts, not its forward, which would draw from torch's generator
            z_BL = encoder.mean_encoder(encoder.encoder(torch.log1p(x_BG), code_B1))
            return z_BL, code_B1


def save(folder: Path, module: LDVAE, config: LdvaeConfig, genes: Sequence[str], meta: Mapping[str, Any]) -> str:
    """Write a model to `folder`, weights first and card last, and return the hash of its weights.

    Parameters
    ----------
    genes : sequence of str
        Gene ids in the order of the columns of X.
    meta : mapping
        Anything that JSON holds: hashes, versions, names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    blob = save_weights(weights)
    card = {
        "format": CHECKPOINT_FORMAT,
        "config": config.model_dump(mode="json"),
        "n_batch": int(module.n_batch),
        "weights": hash_bytes(blob),
        "meta": dict(meta),
        "genes": list(genes),
    }
    write_atomic(folder / WEIGHTS_NAME, blob)
    write_atomic(folder / CARD_NAME, (json.dumps(card, indent=1) + "\n").encode())
    return str(card["weights"])


def load(folder: str | Path, *, device: str = "cpu") -> LoadedModel:
    """Read a model that `save` wrote.

    Raises
    ------
    NotFoundError
        When the folder, or one of its two files, is not there.
    FormatError
        When the card is of another format, or the weights are not those that it names.
    """
    where = Path(folder)
    card_path, weights_path = where / CARD_NAME, where / WEIGHTS_NAME
    for path in (card_path, weights_path):
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file; a model is a folder with {CARD_NAME} and {WEIGHTS_NAME}")
    card = _read_card(card_path)
    blob = weights_path.read_bytes()
    found = hash_bytes(blob)
    if found != card["weights"]:
        raise FormatError(
            f"{weights_path}: these are not the weights that {CARD_NAME} names (xxh3-128 {found}, expected "
            f"{card['weights']}); the file is damaged or from another run. Train again, or restore it."
        )
    config = LdvaeConfig.model_validate(card["config"])
    module = _module_of(load_weights(blob), config, n_genes=len(card["genes"]), n_batch=card["n_batch"])
    target = torch.device(device)
    return LoadedModel(tuple(card["genes"]), config, module.to(target), card["meta"], found, target)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path}: not a model's card: {error}") from None
    if not isinstance(card, dict) or card.get("format") != CHECKPOINT_FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise FormatError(f"{path}: format {found!r}, expected {CHECKPOINT_FORMAT}; read it with the cellmill it is of")
    return card


def _module_of(weights: Mapping[str, torch.Tensor], config: LdvaeConfig, *, n_genes: int, n_batch: int) -> LDVAE:
    means = weights["library_log_means"].double().numpy()
    variances = weights["library_log_vars"].double().numpy()
    with torch.random.fork_rng(
        devices=[]
    ):  # the weights drawn here are overwritten; the caller's generator is not ours
        module = build_ldvae(config, n_genes, means, variances, n_batch=n_batch)
    module.load_state_dict(dict(weights))
    module.eval()
    return module
