"""The loader as scvi-tools takes it (floor 6, loader). The one place of the loader that imports scvi-tools.

Written against the custom data module contract of scvi-tools 1.4.2: ``SCVI(registry=dm.registry)`` and
``model.train(datamodule=dm)``; or ``scvi.module.LDVAE`` with ``scvi.train.TrainingPlan`` and a Lightning trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from cellmill.errors import ConfigError, MissingDependencyError, nearest
from cellmill.loader.epochs import EpochLoader
from cellmill.loader.lightning import DataModule as LightningDataModule
from cellmill.loader.loader import Loader, Source, as_plan, place_in_world
from cellmill.loader.reader import Reader
from cellmill.loader.schedule import Last
from cellmill.mixture import Order, Plan
from cellmill.tokens import CSR, Batch, Dense

try:
    import scvi
except ModuleNotFoundError as error:
    raise MissingDependencyError("scvi-tools", extra="scvi", needed_for="cellmill.scvi.DataModule") from error

__all__ = ["UNLABELLED", "DataModule"]

F64 = npt.NDArray[np.float64]
UNLABELLED: Final = "unknown"
# a last batch smaller than this is left out, as scvi-tools does: batch normalisation cannot use it
SMALLEST_BATCH: Final = 3
BLOCK_CELLS: Final = 4096


class DataModule(LightningDataModule):
    """Out-of-core training data for the models of scvi-tools.

    Batches are dicts: `X` float32 (n, n_vars) raw counts, `batch` and `labels` int64 (n, 1).

    Parameters
    ----------
    train, validation
        Mixture, Plan or Store each; no validation when None.
    genes
        Gene ids of the model, in order; all genes of the training stores when None.
    batch_key
        Column of obs with the experimental batch; one batch for all when None.
    labels_key
        Column of obs with labels; one label for all when None. Cells without one get the label "unknown".
    batch_size, seed, order, prefetch, threads
        As in `Loader`.
    last
        As in `Loader`; None drops a last batch of one or two cells per rank and keeps any other, as scvi-tools does.
    model_name
        Name of the model's class, which scvi-tools checks when it loads a saved model.

    Raises
    ------
    ConfigError
        For columns that are not there, for cells without a batch, and for mixtures of `units`: models of scvi-tools are
        shown single cells.

    Notes
    -----
    A model that learns the library size must be given `library_log_means()` and `library_log_vars()`: built from a
    registry alone it assumes mean 0 and variance 1 in log space, where real cells have 8 to 9.

    Examples
    --------
    >>> data = DataModule(mix, mix.with_split("validation"), batch_key="dataset")  # doctest: +SKIP
    >>> model = scvi.model.SCVI(registry=data.registry)  # doctest: +SKIP
    >>> model.train(max_epochs=20, datamodule=data)  # doctest: +SKIP
    """

    def __init__(
        self,
        train: Source,
        validation: Source | None = None,
        *,
        genes: Sequence[str] | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        batch_size: int = 128,
        seed: int = 0,
        order: str | Order = "exact",
        last: Last | None = None,
        prefetch: int | None = None,
        threads: int = 0,
        model_name: str = "SCVI",
    ) -> None:
        train_plan = _cells_of(train)
        validation_plan = None if validation is None else _cells_of(validation)
        self._train_cells = train_plan
        reader = Reader(train_plan.stores, tokens=CSR(genes))
        self.gene_ids = reader.axis.gene_ids
        self.batch_key = batch_key
        self.labels_key = labels_key
        self.model_name = model_name
        self._last = last
        plans = [train_plan] if validation_plan is None else [train_plan, validation_plan]
        self._batches, no_batch = _values(plans, batch_key)
        self._labels, no_label = _values(plans, labels_key)
        if no_batch:
            raise ConfigError(
                f"batch_key={batch_key!r}: {no_batch:,} cells have no batch. Leave them out with "
                f'where: "{batch_key} IS NOT NULL", or take another column'
            )
        if no_label:
            self._labels = (*(name for name in self._labels if name != UNLABELLED), UNLABELLED)
        wanted = {key: names for key, names in ((batch_key, self._batches), (labels_key, self._labels)) if key}
        super().__init__(
            train_plan,
            validation_plan,
            batch_size=batch_size,
            tokens=Dense(self.gene_ids),
            obs=wanted,
            seed=seed,
            order=order,
            prefetch=prefetch,
            threads=threads,
        )

    # ---- what scvi-tools asks for -----------------------------------------------------------------------------

    @property
    def n_obs(self) -> int:
        """Unique cells of training and validation."""
        return self.train_plan.n_cells + (0 if self.validation_plan is None else self.validation_plan.n_cells)

    @property
    def n_vars(self) -> int:
        """Genes of the model."""
        return len(self.gene_ids)

    @property
    def n_batch(self) -> int:
        """Experimental batches; 1 without `batch_key`."""
        return len(self._batches)

    @property
    def n_labels(self) -> int:
        """Labels; 1 without `labels_key`."""
        return len(self._labels)

    @property
    def n_samples(self) -> int:
        """Always 0: no sample key."""
        return 0

    @property
    def var_names(self) -> list[str]:
        """Gene ids of the model, in order."""
        return list(self.gene_ids)

    @property
    def batch_labels(self) -> npt.NDArray[np.object_]:
        """Names of the codes in `batch`."""
        return np.array(self._batches, dtype=object)

    @property
    def labels_mapping(self) -> npt.NDArray[np.object_]:
        """Names of the codes in `labels`."""
        return np.array(self._labels, dtype=object)

    @property
    def label_keys(self) -> list[str] | None:
        """The column with labels, in a list; None without `labels_key`."""
        return None if self.labels_key is None else [self.labels_key]

    @property
    def unlabeled_category(self) -> str:
        """Label of cells without one."""
        return UNLABELLED

    @property
    def registry(self) -> dict[str, Any]:
        """What ``Model(registry=...)`` takes in place of an AnnData."""
        x_state = {"n_obs": self.n_obs, "n_vars": self.n_vars, "column_names": np.array(self.gene_ids)}
        batch_state = {"categorical_mapping": self.batch_labels, "original_key": self.batch_key or "_scvi_batch"}
        label_state = {
            "categorical_mapping": self.labels_mapping,
            "original_key": self.labels_key or "_scvi_labels",
            "unlabeled_category": UNLABELLED,
        }
        return {
            "scvi_version": scvi.__version__,
            "model_name": self.model_name,
            "setup_args": {
                "layer": None,
                "batch_key": self.batch_key,
                "labels_key": self.labels_key,
                "size_factor_key": None,
                "categorical_covariate_keys": None,
                "continuous_covariate_keys": None,
            },
            "field_registries": {
                "X": _field("X", None, x_state, n_vars=self.n_vars, n_cells=self.n_obs),
                "batch": _field("obs", "_scvi_batch", batch_state, n_batch=self.n_batch),
                "labels": _field("obs", "_scvi_labels", label_state, n_labels=self.n_labels),
                "ind_x": _field("obs", "_indices", {}),
                "size_factor": _field(),
                "extra_categorical_covs": _field(n_extra_categorical_covs=0),
                "extra_continuous_covs": _field(n_extra_continuous_covs=0),
            },
            "setup_method_name": "setup_datamodule",
        }

    def train_dataloader(self) -> EpochLoader[dict[str, torch.Tensor]]:
        """Return the training batches of the trainer's current epoch."""
        rest = self.train_plan.n_draws % self.batch_size
        _, world_size = place_in_world(None, None)
        small = 0 < rest < SMALLEST_BATCH * world_size and self.train_plan.n_draws > self.batch_size
        self._train_options["last"] = self._last or ("drop" if small else "keep")
        return super().train_dataloader()

    def val_dataloader(self) -> EpochLoader[dict[str, torch.Tensor]] | list[Any]:
        """Return the validation batches; genes of the model that no validation store has are zeros."""
        if self.validation_plan is None:
            return []
        loader = self._validation_loader(self.validation_plan, missing="zero")
        return EpochLoader(loader, epoch=_always_zero, convert=self.convert)

    def inference_dataloader(
        self, source: Source | None = None, *, batch_size: int | None = None
    ) -> EpochLoader[dict[str, torch.Tensor]]:
        """Return batches of cells in the order of the stores, on every rank all of them, for
        ``model.get_latent_representation(dataloader=...)``; the training cells when `source` is None.
        """
        options = {**self._train_options, **self._options, "order": "stored", "last": "keep"}
        options["batch_size"] = batch_size or self.batch_size
        plan = self._train_cells if source is None else _cells_of(source)
        loader = Loader(plan, **options, rank=0, world_size=1, missing_genes="zero")
        return EpochLoader(loader, epoch=_always_zero, convert=self.convert)

    def convert(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the dict of tensors that scvi-tools' modules read."""
        return {
            "X": batch.values,
            "batch": self._codes(batch, self.batch_key, self._batches),
            "labels": self._codes(batch, self.labels_key, self._labels),
        }

    def _codes(self, batch: Batch, key: str | None, names: Sequence[str]) -> torch.Tensor:
        """Return codes, int64 (n, 1); values that the model does not know are the unlabelled, where it has those."""
        if key is None:
            return torch.zeros((len(batch), 1), dtype=torch.int64)
        codes = batch.obs[key][:, None]
        if not (codes < 0).any():
            return codes
        if names[-1] != UNLABELLED:
            raise ConfigError(
                f"{int((codes < 0).sum())} cells have a {key!r} that is not among the {len(names)} of the model: "
                f"{', '.join(names[:5])}, ..."
            )
        return torch.where(codes < 0, len(names) - 1, codes)

    # ---- library size -----------------------------------------------------------------------------------------

    def library_log_means(self) -> F64:
        """Return the mean log count of training cells over the model's genes, by batch; float64 (1, n_batch)."""
        return self._library()[0]

    def library_log_vars(self) -> F64:
        """Return the variance of what `library_log_means` is the mean of; float64 (1, n_batch)."""
        return self._library()[1]

    def _library(self) -> tuple[F64, F64]:
        """Return means and variances.

        As ``scvi.model._utils._init_library_size`` of scvi-tools 1.4.2: natural log, population variance, log 0 for a
        cell without counts; 0 and 1 for a batch without cells. Cells count once, however often they are drawn.
        """
        known: tuple[F64, F64] | None = getattr(self, "_library_known", None)
        if known is not None:
            return known
        code, totals = _library_totals(self._train_cells, self.gene_ids, self.batch_key, self._batches)
        logs = np.log(totals, out=np.zeros(len(totals)), where=totals > 0)
        means, variances = np.zeros(self.n_batch), np.ones(self.n_batch)
        for batch in np.unique(code):
            means[batch], variances[batch] = logs[code == batch].mean(), logs[code == batch].var()
        self._library_known = means[None, :], variances[None, :]
        return self._library_known


def _cells_of(source: Source) -> Plan:
    """Return the plan of single cells, which is all that these models can be shown."""
    plan = as_plan(source)
    if plan.units is not None:
        raise ConfigError(
            f"the models of scvi-tools are shown single cells, and this mixture is of units ({plan.units!r}). "
            "Leave `units` out of the mixture, or train on them with cm.Loader or cm.lightning.DataModule"
        )
    return plan


def _field(
    attr_name: str | None = None, attr_key: str | None = None, state: dict[str, Any] | None = None, **stats: int
) -> dict[str, Any]:
    """Return one entry of field_registries; without attr_name, an empty one."""
    data = {} if attr_name is None else {"attr_name": attr_name, "attr_key": attr_key}
    return {"data_registry": data, "state_registry": state or {}, "summary_stats": stats}


def _values(plans: Sequence[Plan], column: str | None) -> tuple[tuple[str, ...], int]:
    """Return the sorted values that the plans' cells have in a column, as text, and how many cells have none."""
    if column is None:
        return ("0",), 0
    seen: set[str] = set()
    n_null = 0
    for plan in plans:
        for index, store in enumerate(plan.stores):
            if column not in store.obs.columns:
                known = store.obs.columns
                raise ConfigError(f"{store.path} has no column {column!r} in obs.{nearest(column, known)}")
            values = store.column(column, plan.rows(index))
            n_null += values.null_count
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            seen.update(value for value in values.cast(pa.string()).unique().to_pylist() if value is not None)
    return tuple(sorted(seen)), n_null


def _library_totals(
    plan: Plan, genes: Sequence[str], batch_key: str | None, batches: Sequence[str]
) -> tuple[npt.NDArray[np.int64], F64]:
    """Return batch code and total counts over the model's genes of each training cell; reads in blocks."""
    obs = {} if batch_key is None else {batch_key: batches}
    reader = Reader(plan.stores, tokens=CSR(genes), obs=obs)
    codes, totals = [], []
    for index in range(len(plan.stores)):
        rows = plan.rows(index)
        for start in range(0, len(rows), BLOCK_CELLS):
            block = rows[start : start + BLOCK_CELLS]
            batch = reader.read(np.full(len(block), index, dtype=np.int64), block)
            codes.append(np.zeros(len(block), np.int64) if batch_key is None else batch.obs[batch_key].numpy())
            indptr, values = batch.indptr, batch.values
            assert indptr is not None
            upto = np.concatenate([[0], np.cumsum(values.numpy(), dtype=np.int64)])
            totals.append(np.diff(upto[indptr.numpy()]).astype(np.float64))
    return np.concatenate(codes), np.concatenate(totals)


def _always_zero() -> int:
    return 0
