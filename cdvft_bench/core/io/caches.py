"""The user's cache folder, and how what is run from it is kept from others."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.lock import take

WAIT_S = 600.0
"""How long to wait for another process that makes the same."""
UNFINISHED = "unfinished-"


def user_cache() -> Path:
    """The user's cache folder: ``$XDG_CACHE_HOME`` where it is absolute, as its specification says, else ``~/.cache``.

    Raises:
        UserError: the user has no home, as a uid without an entry in passwd where HOME is not set.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given)
    try:
        return Path.home() / ".cache"
    except (RuntimeError, KeyError) as error:
        raise UserError("this user has no home folder; set XDG_CACHE_HOME to a folder of yours") from error


def cache_folder() -> Path:
    """Where this suite keeps what it can make again, in the user's cache folder.

    Raises:
        UserError: the user has no home.
    """
    return user_cache() / "cdvft_bench"


class UnsafeError(OSError):
    """Others could change what is in a folder; says which, and the way out."""


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone can enter, or make sure that nobody else could have written to it.

    Returns:
        Its path without links: what was checked is what is used.

    Raises:
        UnsafeError: it, or a folder above it, belongs to somebody else or can be written to by others. A folder above
            it may be one like /tmp, in which nobody removes what is another's.
        OSError: it cannot be made.
    """
    for at in reversed((folder, *folder.parents)):  # mkdir gives parents other modes
        if not at.is_dir():
            at.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders by other means
        return folder.resolve()
    folder = folder.resolve()
    mine = os.getuid()
    for at in (folder, *folder.parents):
        found = at.stat()
        if found.st_uid != mine and (at == folder or found.st_uid not in (0, Path("/").stat().st_uid)):
            raise UnsafeError(
                f"{at} belongs to user {found.st_uid}; name a cache folder of your own by $XDG_CACHE_HOME"
            )
        kept = bool(found.st_mode & stat.S_ISVTX) and at != folder
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not kept:
            raise UnsafeError(
                f"{at} can be written to by others; take that from them (chmod go-w {at}), or name another cache "
                "folder by $XDG_CACHE_HOME"
            )
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:
        with contextlib.suppress(OSError):  # read-only, and so not to be written to by anybody
            folder.chmod(0o700)
    return folder


def _seal(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def put(made: Path, target: Path) -> None:
    """Move a finished file into a private folder, with its size and digest beside it."""
    data = made.read_bytes()
    seal = made.with_name("seal")
    seal.write_text(json.dumps({"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}))
    made.chmod(0o700)
    _seal(target).unlink(missing_ok=True)  # never the new one's beside the old file
    made.replace(target)
    seal.replace(_seal(target))


def is_whole(path: Path) -> bool:
    """Whether a file is the one that was :func:`put` there: the user's own, written by nobody else, not a bit changed.

    Loading a damaged library ends the process.
    """
    try:
        seal = json.loads(_seal(path).read_text(encoding="utf-8"))
        found = path.lstat()
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_size != seal["size"]:
            return False
        return bool(hashlib.sha256(path.read_bytes()).hexdigest() == seal["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def alone_in(folder: Path, name: str, wait_s: float = WAIT_S) -> Iterator[bool]:
    """Hold a lock of a private folder; yields whether there are such locks here.

    The lock is the process's: it is let go when that ends, however it ends.

    Raises:
        TimeoutError: another process held it all the while.
    """
    with (folder / name).open("a") as file:
        locked = _lock(file.fileno(), folder / name, wait_s)
        try:
            yield locked
        finally:
            if locked:  # before a forked child closes its copy of the file
                import fcntl

                fcntl.flock(file, fcntl.LOCK_UN)


def sweep(folder: Path) -> None:
    """Remove what processes that ended left unfinished; only for who is alone."""
    for old in folder.glob(UNFINISHED + "*"):
        shutil.rmtree(old, ignore_errors=True)


def workspace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder in a private one, for what is not finished yet."""
    return tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder)


def _lock(file: int, path: Path, wait_s: float) -> bool:
    """Whether the lock is held; file systems without locks have none, and files are put into place whole anyway."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return take(file)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(f"another process has held {path} for {wait_s:.0f} s") from None
            time.sleep(0.05)
