"""A run from beginning to end (floor 7): resolve, train or resume, save, record.

Knows the run folder and in which order its files appear; the loop itself is in `fit`.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cellmill.errors import ConfigError, InputError, StateMismatchError
from cellmill.events import emit
from cellmill.loader.scvi import SMALLEST_BATCH, DataModule
from cellmill.mixture import Plan
from cellmill.models import build_ldvae, save
from cellmill.storage import exclusive_lock, hash_bytes, write_atomic
from cellmill.train.cells import choose_run_genes, count_labels, describe_mixture, resolve_plans, write_manifest
from cellmill.train.config import RunConfig, parse_run
from cellmill.train.fit import fit, torch_seed
from cellmill.train.record import Row, RunRecord, write_config, write_history

__all__ = ["Evaluator", "train_run"]

Evaluator = Callable[[Path], Mapping[str, Any]]
_PACKAGES = ("cellmill", "torch", "lightning", "scvi-tools", "numpy")


@dataclass(frozen=True)
class _Resolved:
    """A configuration with everything looked up that it leaves open."""

    config: RunConfig
    plan: Plan
    validation: Plan | None
    genes: list[str]
    notes: tuple[str, ...]


def train_run(
    run: RunConfig | Mapping[str, Any] | str | Path, *, evaluators: Sequence[Evaluator] = (), restart: bool = False
) -> RunRecord:
    """Train what `run` describes and return its record; nothing is done twice.

    A finished folder of the same run returns at once. One that was interrupted is continued from its last epoch and
    ends with the same weights, bit for bit, as if it had not been. A folder of another run is refused.

    Parameters
    ----------
    run : RunConfig, mapping, or path of a YAML file
    evaluators : sequence of callables
        Each is given the run folder once the model is saved; what it returns is kept in the record under its name.
    restart : bool
        Throw away what an earlier, different run left in the folder.

    Raises
    ------
    ConfigError
        When the configuration cannot be meant.
    MixtureError, QueryError
        When the mixture cannot be planned, or genes are missing in a store.
    StateMismatchError
        When the folder holds a run with other settings, cells or genes; says which, old and new.
    StoreLockedError
        When another process is training in this folder.

    Examples
    --------
    >>> record = train_run({"out": "runs/a", "mixture": {"components": [...]}, "epochs": 50})  # doctest: +SKIP
    """
    config = _config_of(run)
    folder = config.out
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / ".lock", what=f"the run folder {folder}"):
        resolved = _resolve(config)
        _check_folder(resolved, restart=restart)
        record = _earlier(folder)
        if record is None or not record.finished:
            record = _train(resolved)
        return _evaluate(record, evaluators)


def _config_of(run: RunConfig | Mapping[str, Any] | str | Path) -> RunConfig:
    if isinstance(run, RunConfig):
        return run
    if isinstance(run, str | Path):
        return RunConfig.from_yaml(run)
    return parse_run(run, base=Path.cwd())


def _resolve(config: RunConfig) -> _Resolved:
    plan, validation, notes = resolve_plans(config)
    if plan.n_draws < SMALLEST_BATCH:
        raise ConfigError(f"an epoch of {plan.n_draws} cells is too small for batch normalisation; widen the mixture")
    rest = plan.n_draws % config.batch_size
    if plan.n_draws > config.batch_size and 0 < rest < SMALLEST_BATCH:
        notes.append(f"the last batch of each epoch would hold {rest} cells only and is left out")
    return _Resolved(config, plan, validation, choose_run_genes(config, plan, validation), tuple(notes))


def _settings(resolved: _Resolved) -> dict[str, Any]:
    """Return what decides the weights: two runs that agree in it train the same model."""
    config = resolved.config
    kept = ("model", "epochs", "batch_size", "lr", "weight_decay", "kl_warmup_epochs", "validation_every")
    plain = config.model_dump(mode="json", include={*kept, "seeds"})
    return {
        **{key: plain[key] for key in kept},
        "init seed": config.seeds.init,
        "order seed": config.seeds.order,
        "plan hash": resolved.plan.hash,
        "validation hash": resolved.validation.hash if resolved.validation else None,
        "gene hash": _gene_hash(resolved.genes),
    }


def _gene_hash(genes: Sequence[str]) -> str:
    return hash_bytes("\n".join(genes).encode())


def _check_folder(resolved: _Resolved, *, restart: bool) -> None:
    """Claim the folder for this run, or refuse."""
    folder, settings = resolved.config.out, _settings(resolved)
    claim = folder / "settings.json"
    if claim.exists() and not restart:
        found = json.loads(claim.read_text(encoding="utf-8"))
        different = [key for key in settings if found.get(key) != settings[key]]
        if different:
            said = "; ".join(f"{key}: there {found.get(key)!r}, now {settings[key]!r}" for key in different)
            error = StateMismatchError(f"{folder}: this folder holds another run ({said})")
            # A note, since a pipeline starts over by itself: the finding is then news, and this no advice.
            error.add_note("Give `out` another folder, or start over with restart=True, which removes what is there.")
            raise error
        return
    others = [path.name for path in folder.iterdir() if path.name != ".lock"]
    if others and not claim.exists():
        raise InputError(
            f"{folder}: a folder that is not a run's lies here (it holds {others[0]!r}); choose another `out`"
        )
    for name in ("run.json", "run.yaml", "history.csv", "cells.parquet", "checkpoint", "model", "evaluation"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _write_settings(claim, settings)


def _write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that a folder is claimed for; last of all clearing up, first of all work."""
    write_atomic(path, (json.dumps(settings, indent=1) + "\n").encode())


def _earlier(folder: Path) -> RunRecord | None:
    return RunRecord.read(folder) if (folder / "run.json").exists() else None


def _train(resolved: _Resolved) -> RunRecord:
    config, plan = resolved.config, resolved.plan
    folder = config.out
    emit(f"training {config.title}", done=0, total=config.epochs, unit="epochs")
    data = DataModule(
        plan,
        validation=resolved.validation,
        genes=resolved.genes,
        batch_size=config.batch_size,
        seed=config.seeds.order,
    )
    means, variances = data.library_log_means(), data.library_log_vars()
    record = _first_record(resolved, {"log_mean": means.tolist(), "log_variance": variances.tolist()})
    write_config(folder, record.config)
    write_manifest(folder / "cells.parquet", plan, resolved.validation)
    record.write()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seeds.init, "init"))
        module = build_ldvae(config.model, len(resolved.genes), means, variances)
    checkpoint = folder / "checkpoint" / "last.ckpt"
    checkpoint.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    fitted = fit(
        module,
        data,
        config,
        checkpoint=checkpoint,
        on_epoch=lambda rows: write_history(folder / "history.csv", rows),
    )
    write_history(folder / "history.csv", fitted.history)
    emit(f"training {config.title}", message=f"trained in {time.monotonic() - started:.0f} s; saving the model")
    meta = {"name": config.title, "hashes": record.hashes, "versions": record.versions, "epochs": config.epochs}
    weights = save(folder / "model", module, config.model, resolved.genes, meta)
    finished = replace(
        record,
        finished=True,
        hashes={**record.hashes, "model": weights},
        epochs=len(fitted.history),
        metrics=_last_values(fitted.history),
        device=fitted.device,
        seconds=sum(float(row["seconds"] or 0) for row in fitted.history),
        peak_memory_bytes=_peak_memory_bytes(),
    )
    finished.write()
    shutil.rmtree(checkpoint.parent)  # the model is saved and the record says so: the optimiser's state is done with
    return finished


def _first_record(resolved: _Resolved, library: dict[str, Any]) -> RunRecord:
    config, plan = resolved.config, resolved.plan
    return RunRecord(
        folder=config.out,
        name=config.title,
        finished=False,
        config=_resolved_config(config),
        hashes={
            "plan": plan.hash,
            "validation": resolved.validation.hash if resolved.validation else None,
            "stores": {store.location: store.digest for store in plan.stores},
            "vocabulary": sorted({store.vocabulary_hash for store in plan.stores}),
            "genes": _gene_hash(resolved.genes),
        },
        versions=_versions(),
        n_cells=sum(len(plan.rows(index)) for index in range(len(plan.stores))),
        n_draws=plan.n_draws,
        n_genes=len(resolved.genes),
        n_validation=resolved.validation.n_cells if resolved.validation else 0,
        epochs=0,
        metrics={},
        composition=count_labels(plan, config.describe),
        plan=plan.to_dict(),
        library=library,
        notes=resolved.notes,
    )


def _resolved_config(config: RunConfig) -> dict[str, Any]:
    content = config.model_dump(mode="json", exclude={"mixture", "validation", "out"})
    validation = config.validation
    return {
        "name": config.title,
        "out": str(config.out.absolute()),
        "mixture": describe_mixture(config.mixture),
        "validation": validation if validation in (None, "auto") else describe_mixture(validation),
        **{key: value for key, value in content.items() if key != "name"},
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "source tree"
    return found


def _last_values(history: Sequence[Row]) -> dict[str, float]:
    """Return the last measured value of each column of the history."""
    last: dict[str, float] = {}
    for row in history:
        last.update({name: float(value) for name, value in row.items() if value is not None})
    return {name: value for name, value in last.items() if name not in ("epoch", "seconds")}


def _peak_memory_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _evaluate(record: RunRecord, evaluators: Sequence[Evaluator]) -> RunRecord:
    """Run those evaluators whose results are not in the record yet."""
    for evaluator in evaluators:
        name = getattr(evaluator, "__name__", type(evaluator).__name__)
        known = record.evaluation or {}
        if name not in known:
            record = replace(record, evaluation={**known, name: dict(evaluator(record.folder))})
            record.write()
    return record
