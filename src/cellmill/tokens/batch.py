"""What a model is handed: one batch of cells as torch tensors (floor 5, tokens). Knows no store and no file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cellmill.errors import InputError, MissingDependencyError

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingDependencyError("torch", extra="torch", needed_for="cellmill.tokens and cellmill.Loader") from error

__all__ = ["Batch", "TokenBatch"]

Tensor = torch.Tensor


def _summary(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{where}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_summary(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple) and len(value) > 3:
        return f"({len(value)} names)"
    return repr(value)


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenBatch:
    """What a recipe makes of the counts of n cells.

    Attributes
    ----------
    values : tensor
        CSR: int32[nnz], counts (int64 where one is above 2^31 - 1). Dense: float32 or bfloat16[n, n_columns].
        Sequences: float32[n, length], what the model is shown.
    genes : int32[nnz], int64[n, length] or None
        CSR: column of each value, ascending within a cell. Sequences: tokens of the vocabulary.
    indptr : int64[n + 1] or None
        CSR: the values of cell i are indptr[i] to indptr[i + 1].
    n_columns : int
        Number of columns; what they are is `loader.gene_ids`.
    target : float32[n, length] or None
        Sequences: the values behind the mask.
    mask : bool[n, length] or None
        Sequences: True where the model is to predict; never a special token, never padding.
    lengths : int64[n] or None
        Sequences: tokens of each cell that are no padding, special ones counted; see `padding_mask`.
    cu_seqlens : int32[n + 1] or None
        Sequences without padding: `values`, `genes`, `target`, `mask` are flat, cell i at cu_seqlens[i] to
        cu_seqlens[i + 1], as flash attention takes them.
    extra : dict of str to tensor
        What only one recipe has; its page says what.
    """

    values: Tensor
    genes: Tensor | None = None
    indptr: Tensor | None = None
    n_columns: int = 0
    target: Tensor | None = None
    mask: Tensor | None = None
    lengths: Tensor | None = None
    cu_seqlens: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name each field with its shape; the numbers would fill the screen."""
        said = (f"{one.name}={_summary(getattr(self, one.name))}" for one in fields(self))
        return f"{type(self).__name__}({', '.join(said)})"

    def padding_mask(self) -> Tensor:
        """Return which tokens are padding, bool[n, length]: what torch calls src_key_padding_mask.

        Raises
        ------
        InputError
            When the batch is no padded sequences.
        """
        if self.lengths is None or self.cu_seqlens is not None or self.genes is None:
            raise InputError("this batch has no padding: it is CSR, dense, or was asked for with pad='none'")
        return torch.arange(self.genes.shape[1], device=self.lengths.device) >= self.lengths[:, None]

    def known(self) -> Tensor:
        """Return which tokens are shown to the model, bool[n, length]: neither hidden nor padding.

        Where what is hidden is a part of its own, `extra["gen_genes"]`, the columns are those of `genes` and then those
        of the part.

        Raises
        ------
        InputError
            When the batch is no padded sequences.
        """
        shown = ~self.padding_mask()
        if self.mask is not None:
            shown &= ~self.mask
        if "gen_genes" not in self.extra:
            return shown
        return torch.cat([shown, torch.zeros_like(self.extra["gen_genes"], dtype=torch.bool)], dim=1)

    def attention_mask(self) -> Tensor:
        """Return which token may look at which, bool[n, query, key], True where it may, as torch's attention takes it.

        The rule of generative training: every token sees those that are `known`, and a hidden one itself too, but no
        other hidden one; nothing sees padding. Columns are those of `known`.

        Raises
        ------
        InputError
            When the batch is no padded sequences.

        Notes
        -----
        Memory is n times the length squared, in bytes; where attention takes a rule instead of a mask (flex attention),
        the rule is ``known[cell, key] | (query == key)``. Source: scGPT, branch dev-temp `4068d67`,
        `scgpt/model/flash_layers.py`; tahoebio/tahoe-x1 `7dfe74f`, `tahoe_x1/model/blocks.py`.

        Examples
        --------
        >>> shown, hidden = torch.tensor([[4, 5, 0]]), torch.tensor([[False, True, False]])
        >>> batch = TokenBatch(values=shown.float(), genes=shown, mask=hidden, lengths=torch.tensor([2]))
        >>> batch.attention_mask().int().tolist()
        [[[1, 0, 0], [1, 1, 0], [1, 0, 0]]]
        """
        known = self.known()
        real = ~self.padding_mask()
        if "gen_genes" in self.extra:
            hidden = self.extra["gen_genes"]
            there = torch.arange(hidden.shape[1], device=hidden.device) < self.extra["gen_lengths"][:, None]
            real = torch.cat([real, there], dim=1)
        itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        return known[:, None, :] | (itself & real[:, None, :])

    def to_sparse_csr(self) -> Tensor:
        """Return the counts as a torch sparse CSR tensor, float32[n, n_columns].

        Raises
        ------
        InputError
            When the batch is dense.
        """
        if self.indptr is None or self.genes is None:
            raise InputError("this batch is dense; batch.values is the matrix. For CSR use tokens=CSR()")
        n = len(self.indptr) - 1
        with warnings.catch_warnings():
            # torch says once in each process that its CSR may change; nobody who asks for a batch can act on it
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
            return torch.sparse_csr_tensor(
                self.indptr,
                self.genes.long(),
                self.values.float(),
                size=(n, self.n_columns),
                check_invariants=False,
            )

    def to_dense(self) -> Tensor:
        """Return the values as a matrix, float32[n, n_columns]; of a dense batch as they are."""
        if self.indptr is None or self.genes is None:
            return self.values
        n = len(self.indptr) - 1
        cell = torch.repeat_interleave(torch.arange(n, device=self.values.device), self.indptr.diff())
        out = torch.zeros((n, self.n_columns), dtype=torch.float32, device=self.values.device)
        out[cell, self.genes.long()] = self.values.float()
        return out


@dataclass(frozen=True, kw_only=True, repr=False)
class Batch(TokenBatch):
    """A batch of n cells as the loader yields it.

    Attributes
    ----------
    cells : int64[n]
        Uids; the bits of the store's uint64.
    rows, stores : int64[n]
        Row id of each cell, and code of its store in `plan.stores`.
    component : int64[n]
        Code of the component in `plan.names`.
    totals : float32[n]
        Counts of the whole cell, also where the batch holds a panel of genes.
    obs : dict of str to tensor
        Text columns: codes, int64[n], -1 for null, names in `categories`. Whole numbers: int64[n] (of uint64 the
        bits), or float64[n] with NaN for null where the column has nulls in any store. Other numbers and booleans:
        float32[n], NaN for null.
    categories : dict of str to tuple of str
        Names of the codes.
    padding : bool[n] or None
        True for cells that only fill up a padded last batch, or a padded unit; None when there are none.
    unit : int64[n] or None
        Which of the batch's units each cell is in, 0..n_units-1, ascending; None when a unit is a cell.
    is_control : bool[n] or None
        True for controls. A unit has its `set_size` cells first, then as many controls, where there are any.
    n_units, set_size : int
        Units of the batch, and cells of a unit without its controls; 0 when a unit is a cell.
    epoch, step : int
        Epoch of the cells, and the number of the global step within it.
    position : int
        Draws (cells, or units) of the run that are used up once this batch is; what `state_dict` saves.
    """

    cells: Tensor
    rows: Tensor
    stores: Tensor
    component: Tensor
    totals: Tensor
    obs: Mapping[str, Tensor] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    padding: Tensor | None = None
    unit: Tensor | None = None
    is_control: Tensor | None = None
    n_units: int = 0
    set_size: int = 0
    epoch: int = 0
    step: int = 0
    position: int = 0

    def __len__(self) -> int:
        return len(self.cells)

    def sets(self, per_cell: Tensor) -> Tensor:
        """Return a view by units, without their controls: (n, ...) -> (n_units, set_size, ...).

        Parameters
        ----------
        per_cell
            What has one row for each cell of the batch, such as `batch.to_dense()` or `batch.obs["cell_line"]`.

        Raises
        ------
        InputError
            When the batch has no units, or the tensor another number of rows.

        Examples
        --------
        >>> x = batch.sets(batch.to_dense()), batch.controls(batch.to_dense())  # doctest: +SKIP
        """
        return self._by_unit(per_cell)[:, : self.set_size]

    def controls(self, per_cell: Tensor) -> Tensor:
        """Return a view of the controls by units: (n, ...) -> (n_units, set_size, ...); see `sets`.

        Raises
        ------
        InputError
            When the batch has no controls, or the tensor another number of rows.
        """
        by_unit = self._by_unit(per_cell)
        if by_unit.shape[1] == self.set_size:
            raise InputError("this batch has no controls; say what a control is: units=Sets(..., control=...)")
        return by_unit[:, self.set_size :]

    def _by_unit(self, per_cell: Tensor) -> Tensor:
        if not self.n_units:
            raise InputError("this batch is of single cells; for sets, pairs or chunks use Loader(..., units=...)")
        if len(per_cell) != len(self):
            raise InputError(
                f"expected one row for each of {len(self)} cells, found shape {list(per_cell.shape)}; "
                "values of a CSR batch have none: use batch.to_dense()"
            )
        return per_cell.view(self.n_units, len(self) // self.n_units, *per_cell.shape[1:])

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Batch:
        """Return the batch with all tensors on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; called by torch's DataLoader with pin_memory=True."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and tensor of all that the batch holds."""
        for name in _FIELDS:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                yield name, value
        for name, value in self.obs.items():
            yield f"obs.{name}", value
        for name, value in self.extra.items():
            yield f"extra.{name}", value

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            each.name: change(getattr(self, each.name))
            for each in fields(self)
            if isinstance(getattr(self, each.name), Tensor)
        }
        return replace(
            self,
            **changed,
            obs={name: change(value) for name, value in self.obs.items()},
            extra={name: change(value) for name, value in self.extra.items()},
        )


_FIELDS = tuple(each.name for each in fields(Batch))
