"""LDVAE (floor 6): the variational autoencoder with a linear decoder of scvi-tools, built without an AnnData.

Knows the module's arguments; must not know where its library prior comes from. Imports torch through scvi-tools.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cellmill.errors import ConfigError, MissingDependencyError

try:
    from scvi.module import LDVAE
except ImportError:
    raise MissingDependencyError("scvi-tools", extra="scvi", needed_for="the LDVAE model") from None

__all__ = ["LdvaeConfig", "build_ldvae"]

F64 = npt.NDArray[np.float64]


class LdvaeConfig(BaseModel):
    """What an LDVAE is made of; the defaults are those of the published composition study.

    Source: scFM-datamix (Nadig et al. 2025), LinearSCVI of scvi-tools.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ldvae"] = "ldvae"
    n_latent: int = Field(default=10, ge=1)
    n_hidden: int = Field(default=128, ge=1)
    n_layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    likelihood: Literal["nb", "zinb", "poisson"] = "nb"


def build_ldvae(
    config: LdvaeConfig, n_genes: int, library_log_means: F64, library_log_vars: F64, *, n_batch: int = 1
) -> LDVAE:
    """Return an untrained `scvi.module.LDVAE` with the library prior of the cells it will be trained on.

    Weights are drawn from torch's generator as it stands; seed it first.

    Parameters
    ----------
    config : LdvaeConfig
    n_genes : int
        Columns of X.
    library_log_means, library_log_vars : float64 (1, n_batch)
        Mean and variance of log(total counts over the model's genes) per batch. Never leave these at 0 and 1, as
        scvi-tools does when it is given no AnnData: real cells lie near 8 or 9, and the library's KL is not warmed up.
    n_batch : int
        Batches that the decoder corrects for.

    Raises
    ------
    ConfigError
        When the prior has another shape, is not finite, or has a negative variance.
    """
    for name, values in (("library_log_means", library_log_means), ("library_log_vars", library_log_vars)):
        if values.shape != (1, n_batch):
            raise ConfigError(f"{name} has the shape {values.shape}: expected (1, n_batch) = (1, {n_batch})")
        if not np.isfinite(values).all():
            raise ConfigError(f"{name} is not finite: are there batches without cells?")
    if (library_log_vars <= 0).any():
        raise ConfigError(
            "library_log_vars must be above 0; found "
            f"{float(library_log_vars.min()):g}. Is a batch a single cell, or are all totals equal?"
        )
    return LDVAE(
        n_input=n_genes,
        n_batch=n_batch,
        n_hidden=config.n_hidden,
        n_latent=config.n_latent,
        n_layers_encoder=config.n_layers,
        dropout_rate=config.dropout,
        dispersion="gene",
        gene_likelihood=config.likelihood,
        latent_distribution="normal",
        library_log_means=np.asarray(library_log_means),
        library_log_vars=np.asarray(library_log_vars),
        use_observed_lib_size=False,
    )
