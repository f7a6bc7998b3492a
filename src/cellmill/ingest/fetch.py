"""Inputs behind URLs (floor 4): fetched first, then read as files; what was fetched is told in the reports.

Knows which inputs are URLs and which may be left out. Must not know how bytes move: `cellmill.sources.download` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cellmill.errors import CellmillError, InputError
from cellmill.events import emit
from cellmill.ingest.plan import Skipped
from cellmill.sources.download import Download, Remainder, download, look_at_url, remove_download
from cellmill.storage import require_free_bytes
from cellmill.storage.cache import default_folder
from cellmill.storage.urls import UrlPath, is_url
from cellmill.units import size_text

__all__ = ["Fetched", "downloads_folder", "fetch_inputs", "fetched_inputs"]


@dataclass(frozen=True)
class Fetched:
    """Inputs that lie on this machine.

    Attributes
    ----------
    inputs : tuple of str or Path
        In the order given, URLs replaced by the files that were fetched.
    downloads : dict of Path to Download
        Where each of these came from.
    skipped : tuple of Skipped
        URLs that were left out.
    folder : Path
        In which the files lie.
    """

    inputs: tuple[str | Path, ...]
    downloads: Mapping[Path, Download] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    folder: Path = Path()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the URL to an error about a file that was fetched: its path says little."""
        try:
            yield
        except CellmillError as error:
            for path, one in self.downloads.items():
                if str(path) in str(error):
                    error.add_note(f"{path.name} was {one}")
            raise

    def remove(self) -> None:
        """Delete what was fetched."""
        for one in self.downloads.values():
            remove_download(one, self.folder)

    def finish(self, *, keep: bool) -> None:
        """Delete what was fetched, or say where it is kept."""
        if not keep:
            self.remove()
        elif self.downloads:
            size = size_text(sum(one.n_bytes for one in self.downloads.values()))
            emit("fetching", message=f"{len(self.downloads)} files fetched ({size}) are kept in {self.folder}")


def downloads_folder(given: str | Path | None) -> Path:
    """Return where files are fetched to: `given`, else `inputs` in the cache of this user."""
    return default_folder() / "inputs" if given is None else Path(given).expanduser().absolute()


def fetch_inputs(
    inputs: Sequence[str | Path], *, downloads: str | Path | None = None, skip_bad: bool = False
) -> Fetched:
    """Fetch the inputs that are URLs, after all of them were looked at and there is room for them.

    Parameters
    ----------
    inputs
        Files, folders, patterns, URLs.
    downloads
        Folder to fetch to.
    skip_bad
        Leave out what cannot be fetched.

    Raises
    ------
    ConfigError, NotFoundError, RemoteError
        For a URL that cannot be fetched (unless `skip_bad`).
    DiskSpaceError
        There is no room for all of them; before the first is fetched.
    """
    return _resolved(inputs, downloads_folder(downloads), skip_bad=skip_bad, fetch=True)


def fetched_inputs(inputs: Sequence[str | Path], *, downloads: str | Path | None = None) -> Fetched:
    """Return the same for a plan, fetching nothing: URLs of which the file is not here yet are left out, and say so.

    Raises
    ------
    InputError
        When nothing is left to look at; ConfigError, NotFoundError and RemoteError as `fetch_inputs`.
    """
    found = _resolved(inputs, downloads_folder(downloads), skip_bad=False, fetch=False)
    if found.skipped and not found.inputs:
        reasons = "\n".join(f"  {one.path}: {one.reason}" for one in found.skipped)
        raise InputError(f"nothing can be planned before it is fetched:\n{reasons}")
    return found


def _resolved(inputs: Sequence[str | Path], folder: Path, *, skip_bad: bool, fetch: bool) -> Fetched:
    urls = list(dict.fromkeys(str(one) for one in inputs if is_url(one)))
    if not urls:
        return Fetched(tuple(inputs), folder=folder)
    skipped: dict[str, Skipped] = {}
    looked: dict[str, Remainder] = {}
    for number, url in enumerate(urls):
        emit("looking at URLs", done=number, total=len(urls), unit="URLs")
        try:
            looked[url] = look_at_url(url, folder)
        except CellmillError as error:
            skipped[url] = _left_out(url, error, skip=skip_bad)
    missing = sum(one.n_bytes or 0 for one in looked.values())
    here: dict[str, Download] = {}
    if fetch:
        require_free_bytes(folder, missing, what=f"what is to be fetched ({len(looked)} files)")
    for url, one in looked.items():
        if one.download is not None:
            here[url] = one.download
        elif fetch:
            try:
                here[url] = download(url, folder)
            except CellmillError as error:
                skipped[url] = _left_out(url, error, skip=skip_bad)
        else:
            size = "a file of unknown size" if one.n_bytes is None else size_text(one.n_bytes)
            skipped[url] = Skipped(UrlPath(one.url), f"not fetched yet ({size}); it would be, to {folder}")
    resolved = [here[str(one)].path if is_url(one) else one for one in inputs if str(one) not in skipped]
    return Fetched(tuple(resolved), {one.path: one for one in here.values()}, tuple(skipped.values()), folder)


def _left_out(url: str, error: CellmillError, *, skip: bool) -> Skipped:
    if not skip:
        raise error
    emit(f"skipped {url}", message=f"skipped {url}")
    return Skipped(UrlPath(url), str(error))
