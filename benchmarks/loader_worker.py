"""One figure of the loader, in a process of its own: `loader.py` gives a JSON specification and reads a JSON answer.

Everything runs on the two processors of the specification. What a library is first needed for is imported where its
task begins, so that none pays for the imports of another. Batches are compared with the source before they are timed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(sys.argv[1]) if __name__ == "__main__" else {}
if SPEC:
    os.sched_setaffinity(0, SPEC["cpus"])
    os.environ.update(OMP_NUM_THREADS=str(len(SPEC["cpus"])), MKL_NUM_THREADS=str(len(SPEC["cpus"])))
    sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from source import SourceFiles  # noqa: E402
from systems import load_system  # noqa: E402
from systems.base import Parts, System, torch_csr  # noqa: E402
from worker import PeakMemory, WrongValuesError, batches_of_rows, by_workers, status_bytes, timed, warm  # noqa: E402

MARK = "RESULT "
OBS = ["cell_type", "tissue"]
N_TRAINED = ("train_loss_epoch", "elbo_train")


def files_of(place: str) -> list[Path]:
    return sorted(p for p in Path(place).rglob("*") if p.is_file()) if Path(place).is_dir() else [Path(place)]


# ---- 1: CSR batches with two columns of obs ------------------------------------------------------------------------


def csr(spec: dict[str, Any]) -> dict[str, Any]:
    """cm.Loader, and store.gather of the rows that it drew, in turn in one process."""
    import cellmill as cm

    store = cm.open(spec["place"])
    warm(files_of(spec["place"]))
    options = {"batch_size": spec["batch"], "obs": OBS, "seed": spec["seed"], "epochs": None}
    begin = time.perf_counter()
    loader = cm.Loader(store, **options)
    first = next(iter(loader))
    opened = time.perf_counter() - begin
    check_csr(first, store, spec)
    n_batches = 2 * store.n_cells // spec["batch"] + 1
    steps = [loader.schedule.step(i, start=0).positions for i in range(n_batches)]
    rows = [loader.plan.draw(positions, seed=spec["seed"])[2] for positions in steps]

    def gathered() -> Iterator[int]:
        while True:
            for some in rows:
                yield len(store.gather(some, threads=len(spec["cpus"])).indptr) - 1

    def loaded() -> Iterator[int]:
        for batch in cm.Loader(store, **options):
            yield len(batch)

    rates: dict[str, list[float]] = {"kernel": [], "loader": []}
    for _ in range(3):
        for name, batches in (("kernel", gathered()), ("loader", loaded())):
            rates[name].append(timed(batches, seconds=spec["seconds"]))
            batches.close()  # type: ignore[attr-defined]
    found = {name: float(np.median(values)) for name, values in rates.items()}
    return {"cells_per_second": found["loader"], "kernel": found["kernel"], "first_seconds": opened}


def check_csr(batch: Any, store: Any, spec: dict[str, Any]) -> None:
    source = SourceFiles([Path(p) for p in spec["inputs"]])
    place = {gene: i for i, gene in enumerate(source.gene_ids())}
    expected = source.rows(batch.rows.numpy()[:32])[:, [place[gene] for gene in store.gene_ids]]
    if (batch.to_dense().numpy()[:32] != expected.toarray()).any():
        raise WrongValuesError("cm.Loader: counts differ from the source")


def peer(spec: dict[str, Any]) -> dict[str, Any]:
    """Random batches of another system, the codes of two columns beside them: by two threads, or two workers."""
    inputs = [Path(p) for p in spec["inputs"]]
    system, source = load_system(spec["system"], Path(spec["place"])), SourceFiles(inputs)
    system.open(inputs, threads=len(spec["cpus"]))
    warm(system.files())
    if not system.keeps_order:
        return {"cells_per_second": timed(own_batches(system, spec), seconds=spec["seconds"]), **versions_of(system)}
    codes = np.load(spec["codes"])

    def batches() -> Iterator[int]:
        for rows in batches_of_rows(source.n_cells, spec["batch"], "random", spec["seed"]):
            labels = [torch.from_numpy(column[rows]) for column in codes]
            yield int(torch_csr(system.parts(rows), system.n_genes).shape[0]) if len(labels) == len(OBS) else 0

    rates = [timed(batches(), seconds=spec["seconds"])]
    if not system.has_threads:
        mode = {"kind": "random", "batch": spec["batch"], "threads": 2}
        rates.append(by_workers(system, mode, source.n_cells, spec["seed"], rate=rates[0], spec=spec))
    return {"cells_per_second": max(rates), **versions_of(system)}


def own_batches(system: System, spec: dict[str, Any]) -> Iterator[int]:
    for parts, labels in labelled(system, spec):
        assert len(labels) == len(OBS)
        yield int(torch_csr(parts, system.n_genes).shape[0])


def labelled(system: System, spec: dict[str, Any]) -> Iterator[tuple[Parts, list[torch.Tensor]]]:
    """Batches of annbatch with two columns of obs, by its Loader with the defaults."""
    import anndata
    from annbatch import Loader

    def load(group: Any) -> Any:
        obs = anndata.io.read_elem(group["obs"])[[*OBS, "row"]]
        return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]), obs=obs)

    seed = spec["seed"]
    while True:
        loader = Loader(
            batch_size=spec["batch"], shuffle=True, rng=np.random.default_rng(seed), preload_to_gpu=False, to="torch"
        ).use_collection(system.collection, load_adata=load)  # type: ignore[attr-defined]
        for batch in loader:
            counts = batch["X"]
            system.rows = batch["obs"]["row"].to_numpy()  # type: ignore[attr-defined]
            codes = [torch.from_numpy(batch["obs"][name].cat.codes.to_numpy().copy()) for name in OBS]
            yield (counts.crow_indices(), counts.col_indices(), counts.values()), codes
        seed += 1


# ---- 2: a dense panel, log1p of counts per 10,000 --------------------------------------------------------------------


def log1p_cp10k(dense: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return np.log1p(dense * (1e4 / np.maximum(totals, 1))[:, None].astype(np.float32))


def check_panel(found: np.ndarray, rows: np.ndarray, spec: dict[str, Any]) -> None:
    whole = SourceFiles([Path(p) for p in spec["inputs"]]).rows(rows)
    totals = np.asarray(whole.sum(axis=1)).ravel()
    expected = log1p_cp10k(whole[:, spec["panel"]].toarray(), totals)
    if not np.allclose(found, expected, rtol=1e-5, atol=1e-6):
        raise WrongValuesError("the panel differs from the source")


def panel_cellmill(spec: dict[str, Any]) -> dict[str, Any]:
    import cellmill as cm

    ids = SourceFiles([Path(p) for p in spec["inputs"]]).gene_ids()
    store = cm.open(spec["place"])
    warm(files_of(spec["place"]))
    tokens = cm.tokens.Dense([ids[i] for i in spec["panel"]], transform="log1p_cp10k")
    loader = cm.Loader(store, batch_size=spec["batch"], tokens=tokens, seed=spec["seed"], epochs=None)
    first = next(iter(loader))
    check_panel(first.values.numpy()[:32], first.rows.numpy()[:32], spec)
    return {"cells_per_second": timed((len(batch) for batch in loader), seconds=spec["seconds"])}


def panel_annbatch(spec: dict[str, Any]) -> dict[str, Any]:
    """annbatch's batches of all genes, the panel taken and its values scaled by NumPy."""
    inputs, panel = [Path(p) for p in spec["inputs"]], np.array(spec["panel"])
    system = load_system("annbatch", Path(spec["place"]))
    system.open(inputs, threads=2)
    warm(system.files())

    def batches() -> Iterator[np.ndarray]:
        for (indptr, indices, values), _ in labelled(system, spec):
            pointers, counts = indptr.numpy(), values.numpy()
            column = system.lookup(panel)[indices.numpy()]
            cell = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
            kept = column >= 0
            dense = np.zeros((len(pointers) - 1, len(panel)), dtype=np.float32)
            dense[cell[kept], column[kept]] = counts[kept]
            yield log1p_cp10k(dense, np.bincount(cell, weights=counts, minlength=len(dense)))

    made = batches()
    first = next(made)
    check_panel(first[:32], system.rows[:32], spec)  # type: ignore[attr-defined]
    return {"cells_per_second": timed((len(b) for b in made), seconds=spec["seconds"]), **versions_of(system)}


def panel_adata(spec: dict[str, Any], *, all_genes: bool = False) -> Any:
    """Raw counts of the panel, or of all genes in the source's order, in memory as AnnData: X as CSR, float32."""
    import anndata
    import pandas as pd
    import scipy.sparse as sp

    import cellmill as cm

    store = cm.open(spec["place"])
    ids = SourceFiles([Path(p) for p in spec["inputs"]]).gene_ids()
    panel = ids if all_genes else [ids[i] for i in spec["panel"]]
    counts = store.read(np.arange(store.n_cells), genes=panel).astype(np.float32)
    columns = store.obs.to_pandas(columns=OBS)
    names = [f"cell {i}" for i in range(store.n_cells)]
    obs = pd.DataFrame({name: pd.Categorical(columns[name].astype(object)) for name in OBS}, index=names)
    matrix = sp.csr_matrix(counts)  # scvi-tools knows no sparse arrays
    return store, panel, anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=panel))


def panel_scvi(spec: dict[str, Any]) -> dict[str, Any]:
    """scvi-tools' AnnDataLoader over values in memory, scaled already: all that is left is to make them dense."""
    import scvi
    from scvi.dataloaders import AnnDataLoader

    store, _, adata = panel_adata(spec)
    totals = store.obs.to_pandas(columns=["stored_counts"])["stored_counts"].to_numpy()
    scale = np.repeat(1e4 / np.maximum(totals, 1), np.diff(adata.X.indptr)).astype(np.float32)
    adata.X.data = np.log1p(adata.X.data * scale)
    scvi.model.SCVI.setup_anndata(adata, batch_key="tissue", labels_key="cell_type")
    manager = scvi.model.SCVI(adata).adata_manager
    check_panel(adata.X[:32].toarray(), np.arange(32), spec)
    batches = forever(lambda: AnnDataLoader(manager, shuffle=True, batch_size=spec["batch"]))

    rate = timed((len(batch["X"]) for batch in batches), seconds=spec["seconds"])
    return {"cells_per_second": rate, "versions": {"scvi-tools": scvi.__version__}}


def panel_scvi_all(spec: dict[str, Any]) -> dict[str, Any]:
    """scvi-tools' AnnDataLoader over raw counts of all genes in memory; panel and scale are taken batch by batch."""
    import scvi
    from scvi.dataloaders import AnnDataLoader

    _, _, adata = panel_adata(spec, all_genes=True)
    scvi.model.SCVI.setup_anndata(adata, batch_key="tissue", labels_key="cell_type")
    manager = scvi.model.SCVI(adata).adata_manager
    panel = torch.tensor(spec["panel"])

    def scaled(counts: torch.Tensor) -> torch.Tensor:
        return torch.log1p(counts[:, panel] * (1e4 / counts.sum(dim=1).clamp(min=1))[:, None])

    check_panel(scaled(torch.from_numpy(adata.X[:32].toarray())).numpy(), np.arange(32), spec)
    batches = forever(lambda: AnnDataLoader(manager, shuffle=True, batch_size=spec["batch"]))
    rate = timed((len(scaled(batch["X"])) for batch in batches), seconds=spec["seconds"])
    return {"cells_per_second": rate, "versions": {"scvi-tools": scvi.__version__}}


def forever(make: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from make()


# ---- 3: the first batch, and memory ----------------------------------------------------------------------------------


def first(spec: dict[str, Any]) -> dict[str, Any]:
    import cellmill as cm

    store = cm.open(spec["place"])
    begin = time.perf_counter()
    _ = cm.Loader  # imports the loader; torch is here already
    imported = time.perf_counter() - begin
    before = status_bytes("RssAnon")
    with PeakMemory() as peak:
        begin = time.perf_counter()
        loader = cm.Loader(store, batch_size=spec["batch"], obs=["dataset", "total_counts"], epochs=None)
        batches = iter(loader)
        next(batches)
        seconds = time.perf_counter() - begin
        rate = timed((len(batch) for batch in batches), seconds=max(3.0, spec["seconds"]))
    return {
        "n_cells": store.n_cells,
        "first_seconds": seconds,
        "import_seconds": imported,
        "cells_per_second": rate,
        "peak_anonymous": peak.most,
        "anonymous_before": before,
        "peak_rss": status_bytes("VmHWM"),
    }


# ---- 4: LinearSCVI ---------------------------------------------------------------------------------------------------


def train(spec: dict[str, Any]) -> dict[str, Any]:
    """The same module, plan and trainer on batches of our data module or of scvi-tools' own loader."""
    import warnings

    import scvi

    warnings.filterwarnings("ignore")
    torch.set_num_threads(spec["torch_threads"])
    epochs, batch = spec["epochs"], spec["batch"]
    marks: list[float] = []
    options = {
        "max_epochs": epochs, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "logger": None,
        "enable_checkpointing": False, "callbacks": [epoch_clock(marks)],
    }  # fmt: skip
    begin = time.perf_counter()
    if spec["with"] == "cellmill":
        data, module = ours(spec)
    else:
        data, module = theirs(spec)
    prepared = time.perf_counter() - begin
    plan = scvi.train.TrainingPlan(module, lr=1e-3, n_epochs_kl_warmup=None)
    plan.n_obs_training = spec["n_cells"]
    options["logger"] = scvi.train._logger.SimpleLogger()
    trainer = scvi.train.Trainer(**options)
    torch.manual_seed(spec["seed"])
    trainer.fit(plan, data) if spec["with"] == "scvi" else trainer.fit(plan, datamodule=data)
    history = trainer.logger.history
    seconds = np.diff(marks).tolist()
    losses = {name: history[name].to_numpy(dtype=float).ravel().tolist() for name in N_TRAINED if name in history}
    return {
        "seconds_per_epoch": seconds, "losses": losses, "prepare_seconds": prepared, "batch": batch,
        "peak_rss": status_bytes("VmHWM"), "versions": {"scvi-tools": scvi.__version__},
    }  # fmt: skip


def epoch_clock(marks: list[float]) -> Any:
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_epoch_end(self, *_: Any) -> None:
            marks.append(time.perf_counter())

    return Clock()


def ours(spec: dict[str, Any]) -> tuple[Any, Any]:
    import cellmill as cm

    store = cm.open(spec["place"])
    ids = SourceFiles([Path(p) for p in spec["inputs"]]).gene_ids()
    data = cm.scvi.DataModule(
        store, genes=[ids[i] for i in spec["panel"]], batch_key="tissue", batch_size=spec["batch"], seed=spec["seed"]
    )
    return data, ldvae(data.n_vars, data.n_batch, data.library_log_means(), data.library_log_vars(), spec)


def theirs(spec: dict[str, Any]) -> tuple[Any, Any]:
    import scvi
    from scvi.dataloaders import AnnDataLoader
    from scvi.model._utils import _init_library_size

    _, _, adata = panel_adata(spec)
    scvi.model.LinearSCVI.setup_anndata(adata, batch_key="tissue")
    manager = scvi.model.LinearSCVI(adata).adata_manager
    n_batch = adata.obs["tissue"].nunique()
    is_small = 0 < adata.n_obs % spec["batch"] < 3  # as our data module, and as scvi-tools' own splitter
    data = AnnDataLoader(manager, shuffle=True, batch_size=spec["batch"], drop_last=is_small)
    return data, ldvae(adata.n_vars, n_batch, *_init_library_size(manager, n_batch), spec)


def ldvae(n_genes: int, n_batch: int, means: Any, variances: Any, spec: dict[str, Any]) -> Any:
    import scvi

    torch.manual_seed(spec["seed"])
    return scvi.module.LDVAE(
        n_input=n_genes, n_batch=n_batch, n_latent=10, library_log_means=means, library_log_vars=variances
    )


# ---- 5: label entropy ------------------------------------------------------------------------------------------------


def entropy(spec: dict[str, Any]) -> dict[str, Any]:
    """Bits of label entropy of all batches of an epoch; default settings but the order."""
    import cellmill as cm

    loader = cm.Loader(cm.open(spec["place"]), obs=["label"], order=spec["order"], seed=spec["seed"])
    for _ in loader:
        pass
    return {"order": loader.order.to_dict(), **loader.report()["label_entropy"]["label"]}


# ---- all -------------------------------------------------------------------------------------------------------------


def versions_of(system: System) -> dict[str, Any]:
    return {"versions": system.versions()}


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "csr": csr, "peer": peer, "panel_cellmill": panel_cellmill, "panel_annbatch": panel_annbatch,
    "panel_scvi": panel_scvi, "panel_scvi_all": panel_scvi_all, "first": first, "train": train, "entropy": entropy,
}  # fmt: skip


def main() -> None:
    try:
        answer = TASKS[SPEC["task"]](SPEC)
        try:
            own = {"cellmill": version("cellmill")}
        except PackageNotFoundError:
            own = {}
        answer["versions"] = {"torch": torch.__version__, "numpy": np.__version__, **own, **answer.get("versions", {})}
    except ImportError as error:
        answer = {"missing": str(error)}
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
