"""Fetch a source of remote files, http(s) or s3: python -m stages.fetch.urls NAME OUT.

A file is used only when its sha256 is the one in params.yaml. Downloads are kept, by that sum,
under data/crawl/urls, outside of DVC's outs: a broken one continues, a whole one is not repeated.
"""

import dataclasses
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
import fsspec
from tqdm import tqdm

from finetune import errors, params, patience
from finetune.records import file_sha256
from stages.fetch.readers import format_of
from stages.fetch.sources import Part, arguments, write_source

SCHEMES = ("http", "https", "s3")
BLOCK_BYTES = 8 << 20


def main() -> None:
    name, out, source = arguments(__doc__, "urls")
    parts = [_part(split, url, source) for split, url in sorted(source.files.items())]
    cited = {split: cite(url) for split, url in source.files.items()}
    write_source(out, name, "urls", dataclasses.replace(source, files=cited), parts)


def cite(url: str) -> str:
    """The address without its query, where signatures and keys are.

    Raises ValueError for a scheme other than http, https and s3, and for a password.
    """
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise ValueError(f"{place} is no address that can be read: use {', '.join(SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError(
            f"{place} is written with a user or password: put them into ~/.netrc, "
            "since params.yaml is in Git"
        )
    return place


def _part(split: str, url: str, source: params.Urls) -> Part:
    """The part is cited by its address, or by the name that follows it (`...?id=3#rows.csv`)."""
    place, name = cite(url), urlsplit(url).fragment
    cited = f"{place}#{name}" if name else place
    format_of(cited)
    path = fetch(url, source.sha256[split])
    proof = {"sha256": source.sha256[split], "bytes": path.stat().st_size}
    return Part(split, cited, lambda: path.open("rb"), proof, (), source.encoding or "")


def fetch(url: str, sha256: str) -> Path:
    """The file with that sum: from the store, or fetched into it.

    Raises ValueError if what comes has another sum, OSError if nothing comes.
    """
    store = Path(os.environ.get("DVC_ROOT", ".")) / "data" / "crawl" / "urls"
    path = store / sha256
    store.mkdir(parents=True, exist_ok=True)
    if path.exists() and file_sha256(path) == sha256:
        return path
    partial = store / f"{sha256}.partial"
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another experiment may be at the same file
        if not path.exists():
            _fill(file, url)
            if (got := file_sha256(partial)) != sha256:
                partial.unlink()
                raise ValueError(f"{cite(url)} has sha256 {got}, but params.yaml expects {sha256}")
            partial.rename(path)
    return path


def _fill(file: BinaryIO, url: str) -> None:
    """Append what is missing; after a broken connection go on where it broke."""
    try:
        patience.retried(lambda: _copy(url, file), _asks, f"{cite(url)} did not come whole")
    except Exception as error:  # each file system raises its own client's errors
        raise OSError(f"{cite(url)} could not be fetched: {_reason(error)}") from None


def _copy(url: str, file: BinaryIO) -> None:
    address = url.partition("#")[0] if url.startswith("http") else url
    system, path = fsspec.core.url_to_fs(address, **_options(address))
    size = system.info(path).get("size")
    folder, needed = Path(file.name).parent, (size or 0) - file.tell()
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ValueError(f"{folder} has {free:,} bytes free, {needed:,} are needed")
    try:
        _read_on(system.open(path, "rb", block_size=BLOCK_BYTES), size, file)
    except ValueError:  # a server that gives no ranges: all of it in one answer
        file.truncate(0)
        file.seek(0)
        _read_on(system.open(path, "rb", block_size=0), size, file)


def _options(address: str) -> dict[str, Any]:
    """For http: no limit on the whole time, one on silence; ~/.netrc and proxies are used."""
    if not address.startswith("http"):
        return {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _read_on(opened: BinaryIO, size: int | None, file: BinaryIO) -> None:
    bar = tqdm(total=size, unit="B", unit_scale=True, disable=None, initial=file.tell())
    with opened as remote, bar as progress:
        if file.tell():
            remote.seek(file.tell())
        while data := remote.read(BLOCK_BYTES):
            file.write(data)
            progress.update(len(data))
    file.flush()
    if size is not None and file.tell() < size:
        raise OSError(f"the connection ended after {file.tell()} of {size} bytes")


def _asks(error: Exception) -> str | None:
    """The server's Retry-After, "" where it names none, None where waiting cannot help."""
    cause = _cause(error)
    status = getattr(cause, "status", None)
    final = isinstance(cause, FileNotFoundError | PermissionError | ValueError | ImportError)
    if final or (status and status < 500 and status not in patience.TRANSIENT):
        return None
    return (getattr(cause, "headers", None) or {}).get("Retry-After", "")


def _cause(error: Exception) -> Exception:
    """fsspec says FileNotFoundError for everything; what the server said is behind it."""
    return error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error


def _reason(error: Exception) -> str:
    """The cause, in words that hold no address: a client's own message repeats the query."""
    cause = _cause(error)
    if status := getattr(cause, "status", None):
        return f"the server answered {status}"
    if isinstance(cause, FileNotFoundError):
        return "there is no such file"
    if isinstance(cause, PermissionError):
        return "access is denied; check the credentials in the environment"
    if isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError):
        return str(cause)
    return type(cause).__name__


if __name__ == "__main__":
    errors.run(main)
