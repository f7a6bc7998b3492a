"""The work of each stage (floor 8): the floors below, called with what the experiment file says.

Knows which floor does what, and where its results lie; decides nothing about what is up to date.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellmill.errors import StateMismatchError, StoreExistsError
from cellmill.evaluate import EvalSet, evaluate_run
from cellmill.events import emit
from cellmill.ingest import build
from cellmill.mixture import Mixture
from cellmill.pipeline.cells import arm_mixture, evaluation_plan, panel_plan, validation_mixture
from cellmill.pipeline.config import ExperimentConfig
from cellmill.pipeline.execute import Task, Work
from cellmill.pipeline.publish import publish_report
from cellmill.pipeline.records import claim_folder
from cellmill.pipeline.world import input_files
from cellmill.simulate import write_atlas
from cellmill.statistics import hvg, hvg_of_cells
from cellmill.storage import write_atomic
from cellmill.store import open_store
from cellmill.train import RunConfig, train_run

__all__ = ["Workshop"]

Json = Any
Results = Mapping[str, Json]


class Workshop:
    """The work of every kind of stage of one experiment.

    Parameters
    ----------
    config : ExperimentConfig
        With absolute paths, as `load_experiment` returns it.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        assert config.out is not None
        assert config.data.store is not None
        self.config = config
        self.out: Path = config.out
        self.store: Path = config.data.store

    def work(self) -> dict[str, Work]:
        """Return the work of each kind of stage, for `execute`."""
        return {
            "simulate": self.simulate,
            "build": self.build,
            "plan": self.plan,
            "genes": self.choose_genes,
            "train": self.train,
            "evaluate": self.evaluate,
            "report": self.report,
        }

    def run_folder(self, arm: str, seed: int) -> Path:
        """Return the folder of one training run."""
        return self.out / "runs" / arm / f"seed-{seed}"

    # ---- data ---------------------------------------------------------------------------------------------------

    def simulate(self, task: Task) -> Results:
        """Write the simulated inputs; they appear together, when they are complete."""
        target, temporary = self.out / "simulated", self.out / ".simulated.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        paths = write_atlas(temporary, **dict(task.stage.inputs))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        return {"inputs": [path.name for path in paths]}

    def build(self, task: Task) -> Results:
        """Build the store, in place of one that this experiment built before and of no other."""
        inputs = self.inputs()
        data = self.config.data
        if self.store.exists() and not self._is_ours(task):
            raise StoreExistsError(
                f"{self.store}: a store lies here that this experiment did not build, or that was changed since. "
                "Move it away, give data.store another name, or leave out data.inputs to use it as it is."
            )
        store = build(
            self.store,
            inputs,
            vocabulary=data.vocabulary,
            min_match=data.min_match,
            counts=data.counts,
            rename=data.rename,
            skip_bad=data.skip_bad,
            overwrite=True,
        )
        return {"digest": store.digest, "n_cells": store.n_cells, "n_genes": store.n_genes, "nnz": store.nnz}

    def inputs(self) -> list[Path]:
        """Return the files that the store is built from."""
        if self.config.data.simulate is None:
            return input_files(self.config)
        return sorted(path for path in (self.out / "simulated").iterdir() if not path.name.endswith(".obs.csv"))

    def _is_ours(self, task: Task) -> bool:
        if task.begun is not None:
            return True
        return task.previous is not None and task.previous.results.get("digest") == open_store(self.store).digest

    # ---- plans --------------------------------------------------------------------------------------------------

    def plan(self, task: Task) -> Results:
        """Settle which cells an arm trains on, and keep it as JSON."""
        (arm,) = (str(part) for part in task.stage.subject)
        plan = Mixture.from_dict(arm_mixture(self.config, arm)).plan()
        for warning in plan.warnings:
            emit(task.stage.name, message=f"warning: arm {arm}: {warning}")
        content = plan.to_dict()
        validation = validation_mixture(self.config, arm)
        _write_json(self.out / "plans" / f"{arm}.json", {**content, "validation": validation is not None})
        return {"hash": plan.hash, "n_cells": plan.n_cells, "n_draws": plan.n_draws, "validation": validation,
                "components": content["components"], "warnings": content["warnings"]}  # fmt: skip

    def choose_genes(self, task: Task) -> Results:
        """Choose the genes of the models, or those over which they are measured; the same for all arms."""
        (which,) = task.stage.subject
        genes = self._model_genes() if which == "model" else self._measured_genes()
        _write_json(self.out / "genes" / f"{which}.json", genes)
        return {"n_genes": len(genes) if isinstance(genes, list) else "all"}

    def _model_genes(self) -> list[str] | str:
        wanted = self.config.train.genes
        if wanted == "all":
            return "all"
        if isinstance(wanted, tuple):
            open_store(self.store).gene_positions(list(wanted))  # refuses genes that the store does not have
            return list(wanted)
        plan = panel_plan(self.config)
        return list(hvg(plan.stores[0], n=wanted.hvg, flavor="seurat", rows=plan.rows(0)).gene_ids)

    def _measured_genes(self) -> list[str]:
        """Return the most variable of the models' genes, normalised over these as the evaluation does."""
        plan = panel_plan(self.config)
        store, rows, n = plan.stores[0], plan.rows(0), self.config.measure.hvg
        panel = _read_json(self.out / "genes" / "model.json")
        if panel == "all":
            return list(hvg(store, n=n, flavor="seurat", rows=rows).gene_ids)
        return list(hvg_of_cells([(store, rows)], panel, n, flavor="seurat").gene_ids)

    # ---- models -------------------------------------------------------------------------------------------------

    def train(self, task: Task) -> Results:
        """Train one arm with one seed; what an earlier process left unfinished is continued."""
        arm, seed = str(task.stage.subject[0]), int(task.stage.subject[1])
        folder = self.run_folder(arm, seed)
        claim_folder(folder, task.stage.key)
        run = self._run_config(folder, arm, seed, task)
        try:
            record = train_run(run)
        except StateMismatchError as error:  # begun by a version of cellmill that resolved it differently
            emit(task.stage.name, message=f"begins again: {error}")
            record = train_run(run, restart=True)
        if not (folder / "model").exists():  # the run says that it is finished, but its model was taken away
            record = train_run(run, restart=True)
        return {"seconds": record.seconds, "metrics": dict(record.metrics), "epochs": record.epochs}

    def _run_config(self, folder: Path, arm: str, seed: int, task: Task) -> RunConfig:
        settings = self.config.train.model_dump(mode="json", exclude={"genes"})
        return RunConfig(
            out=folder,
            name=f"{arm} seed {seed}",
            mixture=arm_mixture(self.config, arm),
            validation=task.results[f"plan {arm}"]["validation"],
            model=self.config.model.model_dump(mode="json"),
            genes=_read_json(self.out / "genes" / "model.json"),
            seeds={"data": self.config.seed, "init": seed, "order": seed},
            **settings,
        )

    def evaluate(self, task: Task) -> Results:
        """Evaluate one trained model on every evaluation set, over the genes that all arms share."""
        arm, seed = str(task.stage.subject[0]), int(task.stage.subject[1])
        genes = _read_json(self.out / "genes" / "measure.json")
        result = evaluate_run(self.run_folder(arm, seed), self._evaluation_sets(), hvg_genes=genes)
        return {"sets": len(self.config.evaluation), "rows": len(result.summary)}

    def _evaluation_sets(self) -> list[EvalSet]:
        donor = self.config.split.by if self.config.split and self.config.split.by != "cell" else "donor_id"
        sets: list[EvalSet] = []
        for one in self.config.evaluation:
            plan = evaluation_plan(self.config, one.name)
            columns = plan.stores[0].obs.columns
            sets += EvalSet.from_plan(
                one.name,
                plan,
                cell_type=one.cell_type if one.cell_type in columns else None,
                donor=donor if donor in columns else None,
            )
        return sets

    def report(self, task: Task) -> Results:
        """Write report.html, report.json and report.csv from the evaluated runs."""
        return publish_report(self.config, self.run_folder, task.results)


def _write_json(path: Path, content: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _read_json(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))
