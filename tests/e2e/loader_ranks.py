"""Processes that iterate a loader, each in its rank: started by torchrun from the tests beside this file.

    python -m torch.distributed.run --nproc-per-node 2 loader_ranks.py MODE STORE FOLDER [options as JSON]

Each rank writes the batches that it got to FOLDER/RUN.RANK, one JSON line each.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch

import cellmill as cm

LOADER = {"batch_size": 23, "obs": ["cell_type"], "seed": 5, "downsample": 300}


def content(batch) -> str:
    """A hash of all tensors of a batch."""
    digest = hashlib.sha256()
    for name, tensor in batch.tensors():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def line(batch) -> str:
    return json.dumps([batch.epoch, batch.step, batch.cells.tolist(), content(batch)]) + "\n"


def save(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(state))
    temporary.replace(path)


def torchrun(store, folder: Path, run: str, state: str | None, pause: float) -> None:
    """Iterate three epochs; rank 0 saves the state every fourth step, when all ranks have done it."""
    torch.distributed.init_process_group("gloo")
    loader = cm.Loader(store, epochs=3, **LOADER)
    if state:
        loader.load_state_dict(json.loads(Path(state).read_text()))
    rank = torch.distributed.get_rank()
    (folder / f"{run}.{rank}.pid").write_text(str(os.getpid()))
    with (folder / f"{run}.{rank}").open("w") as out:
        for number, batch in enumerate(loader, start=1):
            out.write(line(batch))
            out.flush()
            time.sleep(pause)
            torch.distributed.barrier()  # as the gradients of a training would
            if rank == 0 and number % 4 == 0:
                save(folder / "state.json", loader.state_dict())
    torch.distributed.destroy_process_group()


def accelerate(store, folder: Path, run: str, resume: bool, stop: int, workers: int) -> None:
    """Iterate two epochs of a prepared loader; with `stop`, save Accelerate's own checkpoint after so many steps."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 1)
    prepared = cm.accelerate.prepare(cm.Loader(store, **LOADER), accelerator, num_workers=workers)
    model, again = accelerator.prepare(model, prepared)
    assert again is prepared
    if resume:
        accelerator.load_state(str(folder / "checkpoint"))
    done = 0
    with (folder / f"{run}.{accelerator.process_index}").open("w") as out:
        while prepared.iteration < 2:
            for batch in prepared:
                with accelerator.accumulate(model):
                    model(torch.ones(1, 2)).sum().backward()
                out.write(line(batch))
                done += 1
                if done == stop:
                    accelerator.save_state(str(folder / "checkpoint"))
                    return
    accelerator.end_training()


if __name__ == "__main__":
    mode, path, where, options = sys.argv[1:]
    {"torchrun": torchrun, "accelerate": accelerate}[mode](cm.open(path), Path(where), **json.loads(options))
