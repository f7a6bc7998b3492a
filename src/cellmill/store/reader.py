"""A store, open for reading (floor 3). Knows nothing of where cells came from, and nothing of torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill import kernel
from cellmill.errors import (
    CellmillError,
    ConfigError,
    CorruptStoreError,
    FrameError,
    InputError,
    NotFoundError,
    nearest,
)
from cellmill.genes import Vocabulary
from cellmill.storage import hash_bytes
from cellmill.storage.urls import is_url
from cellmill.store.columns import numbers_of
from cellmill.store.duplicates import Duplicates, read_duplicates, read_marks
from cellmill.store.gene_lookup import checked_gene_ids, positions_of_genes
from cellmill.store.gene_table import check_genes
from cellmill.store.manifest import MANIFEST_NAME, FileEntry, Manifest
from cellmill.store.measured import measured_genes, sources_of_rows
from cellmill.store.obs import ObsTable
from cellmill.store.obs_query import check_not_empty
from cellmill.store.parquet import read_proven_parquet
from cellmill.store.placing import placed
from cellmill.store.readahead import ReadAhead
from cellmill.store.rows import checked_rows, exact_counts
from cellmill.store.shard import Shard, map_uids, open_shard
from cellmill.store.unchanged import Stamp, Unchanged, read_stamped
from cellmill.store.verify import VerifyReport, verify_store

if TYPE_CHECKING:
    import anndata
    from scipy import sparse

__all__ = ["Frames", "Store", "open_store"]

Transform = Literal["raw", "cp10k", "log1p_cp10k"]
# shard buffers (uint8), shard of each row (int64), start and stop of each row's frame within it (uint64)
Frames = tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]


def open_store(path: str | Path, *, storage_options: Mapping[str, Any] | None = None, checksums: bool = False) -> Store:
    """Open a store; reads its manifest only, shards are mapped when asked for.

    Parameters
    ----------
    path
        A folder, or a URL that begins with s3://, gs:// or https:// (extra `cloud`).
    storage_options
        For a URL: credentials, region and endpoint by obstore's names, where its environment variables do not say
        them; and `cache_folder`, `cache_limit` ("50 GiB"), `timeout_seconds`, `max_retries`, `client_options`.
    checksums
        Check each shard against its checksums when a cell of it is first read: damaged bytes then never give other
        counts, and the first read of a shard takes as long as reading all of it. Otherwise frames are decoded safely,
        but a flipped bit may give another count; `verify` finds it. For stores in folders.

    Raises
    ------
    NotFoundError
        When there is no store at `path`.
    CorruptStoreError
        When the manifest does not hold together.
    RemoteError
        When the server of a URL does not give it; RemoteDeniedError when it wants credentials.
    """
    if is_url(path):
        remote = importlib.import_module("cellmill.store.remote")  # with obstore, which is optional
        if checksums:
            raise ConfigError(f"{path}: checksums are checked on read for stores in folders only; use store.verify()")
        opened: Store = remote.open_remote(path, storage_options)
        return opened
    if storage_options:
        raise ConfigError(f"{path}: storage_options are for stores at a URL, this is a path")
    folder = Path(path)
    manifest_path = folder / MANIFEST_NAME
    try:
        raw, stamp = read_stamped(manifest_path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError(_not_a_store(folder)) from None
    return Store(folder, Manifest.from_json(raw, where=str(manifest_path)), stamp, checksums=checksums)


def _not_a_store(folder: Path) -> str:
    if not folder.exists():
        # near without the ending, which all of them share
        near = nearest(folder.name, [p.name for p in folder.parent.glob("*.mill") if nearest(folder.stem, [p.stem])])
        return f"{folder}: there is no store here.{near} Make one with: cellmill build {folder} INPUT..."
    if folder.is_file():
        return f"{folder}: a file, not a store. To make a store of it: cellmill build NAME.mill {folder}"
    return f"{folder}: a folder without {MANIFEST_NAME}, so not a cellmill store"


class Store:
    """Cells of one store: counts by row id, metadata by SQL.

    Open one with `cellmill.open(path)`; cheap to make, to pickle and to fork. Row ids run from 0 to n_cells - 1 in
    the order of the shards; genes are in storage order (most often detected first), which `genes` names.

    Notes
    -----
    `path` is absolute, so that a later change of the working folder does not matter. Reads of a store that was
    replaced after it was opened raise StoreError when they want a file that is not open yet: row ids of the old one do
    not fit the new one; cells of shards that are open go on being those of the old one. One to which cells
    were added goes on with the cells that it had when it was opened; open it again to see the new ones.
    """

    def __init__(self, path: Path, manifest: Manifest, stamp: Stamp | None = None, *, checksums: bool = False) -> None:
        self._checksums = checksums
        self._given = path
        self.path = path.absolute()
        self.manifest = manifest
        self._unchanged = Unchanged(self.path, manifest, stamp)
        self._bases = np.concatenate([[0], np.cumsum(manifest.shards.n_cells)])
        self._shards: dict[int, Shard] = {}
        self._table = kernel.RowTable(self._bases)
        self._ahead = ReadAhead(partial(_files_of_counts, self.path, manifest))
        self._last_panel: tuple[tuple[str, ...], kernel.Panel] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # a reader in another process maps the shards itself
        return partial(Store, checksums=self._checksums), (self.path, self.manifest, self._unchanged.stamp)

    def __len__(self) -> int:
        return self.n_cells

    def __repr__(self) -> str:
        return f"Store({str(self._given)!r}, {self.n_cells} cells x {self.n_genes} genes, {self.nnz} counts)"

    # ---- what it is -------------------------------------------------------------------------------------------

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self._bases[-1])

    @property
    def n_genes(self) -> int:
        """Number of genes: those that at least one source measured."""
        return int(self.genes.num_rows)

    @property
    def nnz(self) -> int:
        """Number of counts stored, each at least 1."""
        return self.manifest.nnz

    @property
    def digest(self) -> str:
        """xxh3-128 of the contents: equal digests give equal reads."""
        return self.manifest.digest

    @property
    def location(self) -> str:
        """What opens this store again, from any folder: an absolute path, or a URL."""
        return str(self.path)

    def local_file(self, entry: FileEntry) -> Path:
        """Return where a file of the store lies on this machine; of a store at a URL it is fetched."""
        return self.path / entry.path

    @property
    def vocabulary_hash(self) -> str:
        """Hash of the vocabulary whose tokens `genes` carries."""
        return self.manifest.vocabulary_hash

    @property
    def n_bytes(self) -> int:
        """Bytes on disk of the shard files: frames and where each begins (without obs and uids)."""
        return int(self.manifest.shards.numbers("cells", "bytes").sum())

    @cached_property
    def genes(self) -> pa.Table:
        """Genes in storage order: gene_id, symbol (text), token (int64), detection_rate (float64, share of cells)."""
        entry = self.manifest.genes
        with self._unchanged.during():
            table = read_proven_parquet(self.local_file(entry), entry)
        check_genes(table, where=str(self.path / entry.path))
        return table

    @cached_property
    def gene_ids(self) -> tuple[str, ...]:
        """Gene ids in storage order."""
        return tuple(self.genes.column("gene_id").to_pylist())

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the store was built with, also its genes that no source measured."""
        with self._unchanged.during():
            vocabulary = Vocabulary.from_json(self.local_file(self.manifest.vocabulary))
        if vocabulary.hash != self.manifest.vocabulary_hash:
            raise CorruptStoreError(
                f"{self.path / self.manifest.vocabulary.path}: its hash is {vocabulary.hash}, the manifest says "
                f"{self.manifest.vocabulary_hash}"
            )
        return vocabulary

    @cached_property
    def head_model(self) -> bytes | None:
        """The model by which head genes are coded, as it is stored; None where there are no head genes."""
        entry = self.manifest.head
        if entry is None:
            return None
        with self._unchanged.during():
            try:
                data = self.local_file(entry).read_bytes()
            except OSError:
                data = b""
            if len(data) != entry.bytes or hash_bytes(data) != entry.xxh3:
                raise CorruptStoreError(
                    f"{self.path / entry.path}: missing, or not the bytes that the manifest names. "
                    "Restore it from a copy or build the store again."
                )
        return data

    @cached_property
    def head(self) -> Any:
        """That model as `kernel.gather_rows` and `kernel.encode` take it; None where there are no head genes."""
        model = None if self.head_model is None else kernel.open_model(self.head_model)
        if model is not None and model.n_genes > self.n_genes:
            raise CorruptStoreError(
                f"{self.path}: its model is of {model.n_genes} head genes, the store has {self.n_genes} genes. "
                "Restore it from a copy or build the store again."
            )
        return model

    @cached_property
    def obs(self) -> ObsTable:
        """Metadata of the cells, read when asked for."""
        return ObsTable(
            self.path,
            self.manifest.shards,
            self.manifest.obs_schema,
            unchanged=self._unchanged,
            marks=partial(read_marks, self.path, self.manifest),
        )

    @property
    def duplicates(self) -> Duplicates | None:
        """What was found when equal cells were looked for; None when nobody has looked, and for a store at a URL."""
        return None if is_url(self.location) else read_duplicates(self.path, self.manifest)

    # ---- which cells ------------------------------------------------------------------------------------------

    def select(self, where: str | None = None) -> npt.NDArray[np.int64]:
        """Return the row ids, int64, ascending, of the cells that meet an SQL condition over obs (all when None).

        Raises
        ------
        QueryError
            When the condition is empty, names no column, or DuckDB refuses it.

        Examples
        --------
        >>> rows = store.select("tissue = 'blood' AND total_counts >= 1000")  # doctest: +SKIP
        """
        if where is None:
            return np.arange(self.n_cells, dtype=np.int64)
        check_not_empty(where, what="where")
        self.obs.check(f"SELECT row FROM obs WHERE {where}")  # balanced by itself, before it stands in parentheses
        table = self.obs.query(f"SELECT row FROM obs WHERE (\n{where}\n) ORDER BY row")
        rows: npt.NDArray[np.int64] = np.array(numbers_of(table.column("row")))
        return rows

    def query(self, sql: str) -> pa.Table:
        """Return the result of one SELECT over the table `obs` (with the column `row`)."""
        return self.obs.query(sql)

    def column(self, name: str, rows: npt.ArrayLike | None = None) -> pa.Array:
        """Return one column of obs as an Arrow array."""
        column = self.obs.to_arrow([name], rows).column(0)
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

    def uids(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.uint64]:
        """Return the uids of cells, uint64: the same cell of the same dataset has the same uid in every store."""
        ids = self._checked_rows(np.arange(self.n_cells) if rows is None else rows)
        for index in self._table.missing_numbers(ids):
            self._table.put_numbers(index, self._map_uids(index))
        return self._table.numbers(ids)

    def totals(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Return the sum of counts of cells over all genes of the store, int64.

        Notes
        -----
        `total_counts` of obs is the sum over all genes of a cell's file, which may be more.
        """
        return self.obs.stored("stored_counts", rows)

    # ---- what was measured ------------------------------------------------------------------------------------

    def measured(self, source: str | None = None) -> npt.NDArray[np.bool_]:
        """Return which genes a source measured, shape (n_genes,), in storage order: its other zeros are no zeros.

        Without `source`, of all sources, shape (n_sources, n_genes), in the order of `manifest.sources`; the genes
        measured in each cell of `rows` are then ``store.measured()[store.source_of(rows)]``.

        Raises
        ------
        NotFoundError
            When there is no such source.
        StoreError
            When the source was added before this was kept.

        Examples
        --------
        >>> absent = ~store.measured("pbmc")  # doctest: +SKIP
        """
        with self._unchanged.during():
            return measured_genes(self, source)

    def source_of(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Return the source of each cell, int64, as its position in `manifest.sources`."""
        return sources_of_rows(self, np.arange(self.n_cells) if rows is None else self._checked_rows(rows))

    # ---- counts -----------------------------------------------------------------------------------------------

    def read(
        self,
        rows: npt.ArrayLike,
        *,
        genes: Sequence[str] | kernel.Panel | None = None,
        dtype: npt.DTypeLike = np.uint32,
        threads: int = 0,
    ) -> sparse.csr_array:
        """Return counts of cells in the order asked for.

        Parameters
        ----------
        rows
            Row ids, any order, repeats allowed.
        genes
            Gene ids of a panel; its order is the order of the columns. All genes in storage order when None.
            `store.panel(ids)` prepares a panel once for many reads.
        dtype
            Of the counts: any integer or float type; uint32, int32 and float32 are written by the kernel itself.
        threads
            Threads of the kernel; 0 for all cores.

        Returns
        -------
        csr_array, shape (len(rows), n_genes or len(genes))
            Column indices ascending in each row.

        Raises
        ------
        IndexError
            For a row id outside 0..n_cells-1.
        QueryError
            For a gene that the store does not have.
        InputError
            For a count that `dtype` does not hold exactly, naming the row.
        FrameError
            For a cell whose bytes cannot be decoded, naming shard and row.
        """
        from scipy import sparse  # here: most processes of a build open stores and never read them

        ids = self._checked_rows(rows)
        panel = self.panel(genes)
        wanted = np.dtype(dtype)
        made_by = wanted.name if wanted.name in kernel.COUNT_DTYPES else "uint32"
        got = self.gather(ids, panel=panel, dtype=made_by, threads=threads)
        values = got.values if wanted == np.dtype(made_by) else exact_counts(got, wanted, ids)
        n_columns = self.n_genes if panel is None else panel.n_columns
        # scipy copies both index arrays to int64 where one of them is, which would take as long as decoding
        indptr = got.indptr.astype(np.int32) if len(values) <= np.iinfo(np.int32).max else got.indptr
        return sparse.csr_array((values, got.indices, indptr), shape=(len(ids), n_columns))

    def read_dense(
        self,
        rows: npt.ArrayLike,
        *,
        genes: Sequence[str] | kernel.Panel | None = None,
        transform: Transform = "raw",
        out: npt.NDArray[np.float32] | None = None,
        threads: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Return counts of cells as a dense array, float32, shape (len(rows), n_genes or len(genes)).

        `transform` is "raw", "cp10k" (counts per 10,000 of the whole cell) or "log1p_cp10k" (its natural log1p);
        `out` is filled and returned where it is given. Raises as `read` does; a count above 2^24 is rounded.
        """
        ids = self._checked_rows(rows)
        return self.gather_dense(ids, panel=self.panel(genes), transform=transform, out=out, threads=threads)

    def panel(self, genes: Sequence[str] | kernel.Panel | None) -> kernel.Panel | None:
        """Return a panel of gene ids, prepared for many reads; None stands for all genes.

        Raises
        ------
        QueryError
            For a gene that the store does not have.
        InputError
            For a gene that is named twice.
        """
        if genes is None or isinstance(genes, kernel.Panel):
            return genes
        key = tuple(checked_gene_ids(genes))
        if self._last_panel is None or self._last_panel[0] != key:
            positions = self.gene_positions(key)
            if len(np.unique(positions)) != len(positions):
                raise InputError("a panel names each gene once; some are repeated")
            column_of = np.full(self.n_genes, -1, dtype=np.int32)
            column_of[positions] = np.arange(len(positions), dtype=np.int32)
            self._last_panel = key, kernel.Panel(column_of, n_genes=self.n_genes, n_columns=len(positions))
        return self._last_panel[1]

    def gather(
        self,
        rows: npt.NDArray[np.int64],
        *,
        panel: kernel.Panel | None = None,
        dtype: str = "uint32",
        totals: bool = False,
        threads: int = 0,
    ) -> kernel.Gathered:
        """Return cells as the arrays of a CSR matrix, with little between caller and kernel; see `kernel.gather_rows`.

        Raises as `read` does.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        try:
            return self._gather(rows, panel=panel, dtype=dtype, totals=totals, threads=threads)
        except (FrameError, InputError) as error:
            raise self._placed(error, rows) from None

    @property
    def fuses(self) -> bool:
        """Whether `gather_later` is possible: with the native kernel, of files that are here."""
        return kernel.EncodedRows.possible()

    def gather_later(self, rows: npt.NDArray[np.int64]) -> kernel.EncodedRows:
        """Return cells that are decoded where they are used. Raises as `read` does, also when they are decoded."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        table = self._table_of(rows)
        self._ahead.before(table, rows)
        return kernel.EncodedRows(
            table,
            rows,
            n_genes=self.n_genes,
            head=self.head,
            explained=partial(self._placed, rows=rows),
            after=self._ahead.after,
        )

    def gather_dense(
        self,
        rows: npt.NDArray[np.int64],
        *,
        panel: kernel.Panel | None = None,
        transform: Transform = "raw",
        totals: npt.NDArray[np.int64] | None = None,
        out: npt.NDArray[np.float32] | None = None,
        totals_out: npt.NDArray[np.uint64] | None = None,
        threads: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Return cells as a dense matrix; see `kernel.gather_rows_dense`. Raises as `read` does."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        try:
            return self._gather_dense(
                rows,
                panel=panel,
                transform=transform,
                totals=totals,
                out=out,
                totals_out=totals_out,
                threads=threads,
            )
        except FrameError as error:
            raise self._placed(error, rows) from None

    def _gather(self, rows: npt.NDArray[np.int64], **how: Any) -> kernel.Gathered:
        table = self._table_of(rows)
        self._ahead.before(table, rows)
        got = kernel.gather_rows(table, rows, n_genes=self.n_genes, head=self.head, **how)
        self._ahead.after()
        return got

    def _gather_dense(self, rows: npt.NDArray[np.int64], **how: Any) -> npt.NDArray[np.float32]:
        table = self._table_of(rows)
        self._ahead.before(table, rows)
        made = kernel.gather_rows_dense(table, rows, n_genes=self.n_genes, head=self.head, **how)
        self._ahead.after()
        return made

    def _table_of(self, rows: npt.NDArray[np.int64]) -> kernel.RowTable:
        """Return the table of rows, in which the shards of these are open."""
        table = self._table
        missing = table.missing(rows)
        for index, shard in zip(missing, self._mapped(missing), strict=True):
            table.put(index, shard.frames, shard.offset_bases, shard.offset_steps)
        return table

    @property
    def cache_counts(self) -> tuple[int, int]:
        """Blocks of counts that reads of this object found in the cache, and that they fetched; 0 of a local store."""
        return 0, 0

    def prefetch(self, rows: npt.ArrayLike) -> None:
        """Ask for what a later `read` of these cells needs, without waiting: the system reads it from the disk.

        Raises as `read` does.
        """
        ids = self._checked_rows(rows)
        self._table_of(ids).will_need(ids)

    def gene_positions(self, gene_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the position of genes in storage order, int64.

        Raises
        ------
        QueryError
            For genes that the store does not have, with examples.
        """
        return positions_of_genes(self.genes, gene_ids, where=str(self.path))

    def frames(self, rows: npt.NDArray[np.int64]) -> Frames:
        """Return where the frames of cells lie, as `kernel.gather` takes it; `rows` are trusted to be in range."""
        shard_of = self._shard_of(rows)
        start = np.empty(len(rows), dtype=np.uint64)
        stop = np.empty(len(rows), dtype=np.uint64)
        used, local = np.unique(shard_of, return_inverse=True)
        shards = self._mapped(used.tolist())
        for index, shard in zip(used, shards, strict=True):
            chosen = shard_of == index if len(used) > 1 else slice(None)
            start[chosen], stop[chosen] = shard.spans(rows[chosen] - self._bases[index])
        return [shard.frames for shard in shards], local.astype(np.int64), start, stop

    # ---- out and check ----------------------------------------------------------------------------------------

    def to_anndata(self, rows: npt.ArrayLike | None = None) -> anndata.AnnData:
        """Return cells as an AnnData in memory: X raw counts, obs as in the files, var the genes in storage order.

        Raises
        ------
        MissingDependencyError
            When anndata is not installed (extra `anndata`).
        """
        adapter = importlib.import_module("cellmill.store.adapter")  # the one module of the store that knows anndata
        ids = np.arange(self.n_cells, dtype=np.int64) if rows is None else self._checked_rows(rows)
        result: anndata.AnnData = adapter.to_anndata(self, ids)
        return result

    def verify(self, sample: float = 1.0) -> VerifyReport:
        """Check every byte against its checksum, and decode every frame (or a share of them, 0 < sample <= 1)."""
        return verify_store(self, sample=sample)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _checked_rows(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        return checked_rows(rows, n_cells=self.n_cells, where=str(self.path))

    def _shard_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._bases, rows, side="right").astype(np.int64) - 1

    def _mapped(self, indexes: Sequence[int]) -> list[Shard]:
        """Return shards, each opened when it is first asked for; one look at the manifest for all of them."""
        if missing := [index for index in indexes if index not in self._shards]:
            n_genes = self.n_genes
            with self._unchanged.during():
                found = [self._open(index, n_genes) for index in missing]
            self._shards.update(zip(missing, found, strict=True))
        return [self._shards[index] for index in indexes]

    def _open(self, index: int, n_genes: int) -> Shard:
        entry = self.manifest.shards[index]
        shard = open_shard(self.path / entry.cells.path, entry, n_genes=n_genes)
        if self._checksums and (damaged := shard.damaged_sections()):
            raise CorruptStoreError(
                f"{shard.path}: the checksum of its {' and '.join(damaged)} does not hold; the bytes have changed. "
                "Restore it from a copy or build the store again."
            )
        return shard

    def _map_uids(self, index: int) -> npt.NDArray[np.uint64]:
        entry = self.manifest.shards[index]
        with self._unchanged.during():
            return map_uids(self.local_file(entry.uids), entry)

    def _placed(self, error: CellmillError, rows: npt.NDArray[np.int64]) -> CellmillError:
        return placed(error, rows, path=self.path, manifest=self.manifest)


def _files_of_counts(folder: Path, manifest: Manifest) -> tuple[list[Path], int]:
    shards = manifest.shards
    return [folder / path for path in shards.texts("cells", "path")], int(shards.numbers("cells", "bytes").sum())
