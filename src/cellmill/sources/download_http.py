"""Files over https (floor 3, sources): ranges, redirects, and faults told apart by whether they may pass.

Knows HTTP, by Python's own client. Must not know disks.
"""

from __future__ import annotations

import email.message
import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlsplit

from cellmill.errors import NotFoundError, RemoteDeniedError, RemoteError, RemoteTimeoutError
from cellmill.sources.download_origin import Found, Passing, Stream
from cellmill.storage.urls import is_loopback

__all__ = ["HttpOrigin"]

CHUNK_BYTES = 1 << 20
LONGEST_WAIT_SECONDS = 60.0
_TOTAL = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$")


class HttpOrigin:
    """A file at an https URL.

    Parameters
    ----------
    url : str
    shown : str
        The URL as it may stand in messages.
    timeout_seconds : float
        Longest silence.
    """

    def __init__(self, url: str, *, shown: str, timeout_seconds: float) -> None:
        self._url = quote(url, safe="%/:=&?~+!$,;'@()*[]")
        self._shown, self._timeout = shown, timeout_seconds
        self._opener = urllib.request.build_opener(_Redirects(shown))

    def look(self) -> Found:
        """Return what the server says of the file, by asking for its first byte."""
        with self._get({"Range": "bytes=0-0"}) as answer:
            return self._found(answer)

    def open(self, start: int, found: Found) -> Stream:
        """Return the bytes from `start`, or all of them where the server gives no parts, or has another file now."""
        headers = {}
        if start and found.tag:  # without one, nobody knows whether it is the same file
            headers["Range"] = f"bytes={start}-"
            # a weak ETag is not for ranges; the answer's own is compared in any case
            if found.tag and not found.tag.startswith("W/"):
                headers["If-Range"] = found.tag.removeprefix("modified ")
        answer = self._get(headers)
        now = self._found(answer)
        begins = 0
        if answer.status == http.client.PARTIAL_CONTENT:
            match = _TOTAL.match(answer.headers.get("Content-Range", ""))
            begins = int(match[1]) if match and match[1] else -1
            if begins != start or not found.is_same(now):
                answer.close()
                return self._whole()
        return Stream(begins, now, self._chunks(answer), answer.close)

    def _whole(self) -> Stream:
        answer = self._get({})
        return Stream(0, self._found(answer), self._chunks(answer), answer.close)

    def _found(self, answer: http.client.HTTPResponse) -> Found:
        said = answer.headers
        length: str | None = said.get("Content-Length")
        if answer.status == http.client.PARTIAL_CONTENT:
            match = _TOTAL.match(said.get("Content-Range", ""))
            length = match[2] if match else None
        modified = said.get("Last-Modified", "")
        tag = said.get("ETag") or (f"modified {modified}" if modified else "")
        is_number = length is not None and length.isdecimal()
        return Found(int(length or 0) if is_number else None, tag, said.get_filename(), _md5(said))

    def _chunks(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                chunk = answer.read(CHUNK_BYTES)
            except http.client.IncompleteRead as error:
                yield error.partial
                raise Passing(self._broken("the answer was cut off")) from None
            except (TimeoutError, OSError, http.client.HTTPException) as error:
                raise self._fault(error) from None
            if not chunk:
                return
            yield chunk

    def _get(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        own = {"User-Agent": "cellmill", "Accept-Encoding": "identity", "Accept": "*/*"}
        request = urllib.request.Request(self._url, headers=own | headers)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (urllib.error.URLError, TimeoutError, OSError, http.client.HTTPException) as error:
            raise self._fault(error) from None
        return answer

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """Return the error for an answer that is no file."""
        said = f"{error.code} {error.reason}"
        if error.code in (404, 410):
            return NotFoundError(f"{self._shown}: there is no such file ({said}). Check the URL.")
        if error.code in (401, 403):
            return RemoteDeniedError(
                f"{self._shown}: the server refuses to give it ({said}). Over https only what is public can be "
                "fetched; credentials are for s3:// and gs://."
            )
        if error.code == 416:
            return RemoteError(f"{self._shown}: the file is empty, or shorter than a moment ago ({said}).")
        if error.code in (408, 425, 429) or error.code >= 500:
            wait = error.headers.get("Retry-After", "")
            seconds = min(float(wait), LONGEST_WAIT_SECONDS) if wait.isdecimal() else None
            return Passing(self._broken(f"the server answers {said}"), seconds)
        return RemoteError(f"{self._shown}: the server answers {said}. Check the URL.")

    def _fault(self, error: Exception) -> Exception:
        """Return the error for a connection that fails; most may pass."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, RemoteError):
            return reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            return RemoteError(f"{self._shown}: its certificate does not hold ({reason.verify_message}).")
        if isinstance(reason, TimeoutError):
            return Passing(
                RemoteTimeoutError(
                    f"{self._shown}: no answer within {self._timeout:g} s, again and again. What came is kept; the "
                    "same command goes on with the rest later."
                )
            )
        if isinstance(reason, socket.gaierror):
            return Passing(self._broken("no server of this name can be found"))
        return Passing(self._broken(str(reason) or repr(reason)))

    def _broken(self, finding: str) -> RemoteError:
        return RemoteError(
            f"{self._shown}: cannot be fetched, however often it is tried: {finding}. What came is kept; the same "
            "command goes on with the rest later."
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to where others can read along."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request."""
        if urlsplit(newurl).scheme != "https" and not (is_loopback(newurl) and is_loopback(req.full_url)):
            raise RemoteError(
                f"{self._shown}: leads to {urlsplit(newurl).scheme}://, which is not encrypted; not followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _md5(headers: email.message.Message) -> str:
    """Return the MD5 of the whole file in base64, where the server gives it."""
    if "Content-Range" not in headers and headers.get("Content-MD5"):
        return str(headers["Content-MD5"]).strip()
    given = ",".join(headers.get_all("x-goog-hash") or [])
    match = re.search(r"md5=([A-Za-z0-9+/]{22}==)", given)
    return match[1] if match else ""
