"""Where batches shall lie (floor 6, loader). Knows torch devices only."""

from __future__ import annotations

import torch

from cellmill.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(device: torch.device | str | int | None, *, pin_memory: bool) -> tuple[torch.device | None, bool]:
    """Return the device to copy batches to, None for main memory, and whether they are pinned there first.

    Raises
    ------
    ConfigError
        For a device that is not there, and for pinned memory without a CUDA device.
    """
    try:
        chosen = None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device={device!r} is no device of torch: {error}. Write 'cpu', 'cuda' or 'cuda:1'"
        ) from None
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen is not None and chosen.type == "cuda" and (chosen.index or 0) >= n_cuda:
        raise ConfigError(
            f"device={str(chosen)!r}: this process has {n_cuda} CUDA devices. Leave `device` out, or install a torch "
            "built for CUDA on a machine with a driver; torch.cuda.is_available() says whether it is found"
        )
    if pin_memory and not n_cuda:
        raise ConfigError("pin_memory=True needs a CUDA device, and this process has none; leave it out")
    if chosen is None or chosen.type == "cpu":
        return None, pin_memory
    return chosen, pin_memory or chosen.type == "cuda"
