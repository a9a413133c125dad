"""Files written whole or not at all: the one place that writes what a user asked for."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cdvft_bench.core.errors import UserError

_WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or name a file on another disk"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a part of its path is a file; name another folder"),
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "it is a folder; name a file",
    errno.ELOOP: "its links lead to themselves; name another file",
}


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write a file; an older one stands until the new one is complete, and nothing else is left behind.

    Args:
        path: folders that lack are made. A device or a pipe (``/dev/stdout``) is written into, never replaced.
        content: text is written as UTF-8.

    Raises:
        UserError: it cannot be written; names the path, the reason and the way out.
    """
    try:
        data = content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(path)} cannot be written: it would hold {content[error.start]!a}, which is no character of "
            "UTF-8; take it out of the names that you gave"
        ) from error
    with replacing(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    For libraries that want a path. Links are followed; the permissions of an older file are kept.

    Raises:
        UserError: as :func:`write_file`, also for an OSError inside the block.
    """
    made: list[Path] = []
    part: Path | None = None
    try:
        target = _target(path)
        if target.exists() and not target.is_file():
            with _into(target) as part:
                yield part
            return
        made = make_folders(target.parent)
        # Names may be as long as the file system allows: the temporary one must not be longer.
        start = os.fsdecode(os.fsencode(target.name)[:40])
        handle, name = tempfile.mkstemp(prefix=f".{start}.", suffix=".part", dir=target.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(_mode(target))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException as error:
        _clean(part, made)
        if isinstance(error, OSError) or "null byte" in str(error) or "Symlink loop" in str(error):
            raise UserError(unwritable(path, error)) from error
        raise


def unwritable(path: str | Path, error: BaseException, what: str = "file") -> str:
    """One line on why a file or a folder cannot be written, with the way out."""
    reason, number = (error.strerror, error.errno) if isinstance(error, OSError) else (None, None)
    way = _WAYS_OUT.get(number or 0, f"name a {what} in a folder of yours")
    if reason is None and "Symlink loop" in str(error):
        reason, way = os.strerror(errno.ELOOP), _WAYS_OUT[errno.ELOOP]
    return f"{shown(path)} cannot be written: {reason or error}; {way}"


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file, a device or a pipe to read; False of a name that the system does not take."""
    return os.path.exists(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112 - Path's methods raise on such names


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False of a name that the system does not take."""
    return os.path.isdir(path)  # noqa: PTH112


def shown(path: str | Path) -> str:
    """A path as a message shows it: one line, no control characters, no half of a surrogate pair."""
    text = os.fspath(path)
    return text if text.isprintable() and text else ascii(text)


def _target(path: str | Path) -> Path:
    if not os.fspath(path):
        raise UserError("'' is no name of a file; name one")
    given = Path(path)
    target = given.resolve() if given.is_symlink() else given
    if target.is_dir():
        raise UserError(f"{shown(path)} cannot be written: it is a folder; name a file")
    return target


@contextlib.contextmanager
def _into(target: Path) -> Iterator[Path]:
    """A file whose content goes into a device or a pipe in the end."""
    mode = target.stat().st_mode
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        raise UserError(f"{shown(target)} is no file, device or pipe to write to; name a file")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        part = Path(folder) / (target.name or "part")
        part.touch()
        yield part
        with part.open("rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that were made, the innermost first.

    Raises:
        OSError, ValueError: it cannot be made; what was made of it until then is removed.
    """
    missing = []
    at = folder
    while not at.exists() and at != at.parent:
        missing.append(at)
        at = at.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except BaseException:
        remove_folders(missing)
        raise
    return missing


def remove_folders(made: list[Path]) -> None:
    """Remove what :func:`make_folders` made, as far as nobody has put anything there."""
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or of a new file under the umask."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _clean(part: Path | None, made: list[Path]) -> None:
    if part is not None:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    remove_folders(made)


# --- a report's files, as a whole or not at all ----------------------------------------------


_SUFFIXES = {"figures": (".pdf", ".png", ".svg"), "tables": (".csv", ".tex")}
_FILES = ("report.html", "report.md", "accuracy.md")


def check_replaceable(target: Path) -> None:
    """Refuse a folder whose replacement would delete anything that is no part of a report."""
    if not os.fspath(target) or target.name in ("", "..") or "\0" in target.name:
        raise UserError(f"{shown(target)} is no name of a folder of its own; name a new or empty folder")
    dangling = os.path.islink(target) and not is_folder(target)  # noqa: PTH114 - as is_file
    if is_file(target) or dangling:
        raise UserError(f"{shown(target)} is a file; a report needs a folder: name another")
    if not is_folder(target):
        return
    try:
        inside = sorted(target.iterdir())
    except OSError as error:
        raise UserError(f"folder {shown(target)} cannot be read: {error.strerror}; name another") from error
    for path in inside:
        suffixes = _SUFFIXES.get(path.name)
        foreign = [path] if path.name not in _FILES and suffixes is None else []
        if suffixes is not None:
            foreign = [p for p in path.iterdir() if not _ours(p, suffixes)] if path.is_dir() else [path]
        if foreign:
            raise UserError(
                f"{shown(target)} holds {foreign[0].name!r}, which is no part of a report and would be lost; "
                "name a new or empty folder"
            )


def _ours(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a report writes such a file: a PDF beside its SVG, a LaTeX table beside its CSV."""
    beside = {".pdf": ".svg", ".tex": ".csv"}.get(path.suffix)
    return path.suffix in suffixes and (beside is None or path.with_suffix(beside).exists())


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Put the files where ``target`` is: written beside it first, then renamed into its place.

    Raises:
        UserError: it cannot be written; nothing is left behind.
    """
    made: list[Path] = []
    try:
        made = make_folders(target.parent)
        _write(target, files)
    except (OSError, ValueError) as error:
        remove_folders(made)
        raise UserError(unwritable(target, error, "folder")) from error


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    start = os.fsdecode(os.fsencode(target.name)[:40])
    workspace = Path(tempfile.mkdtemp(prefix=f".{start}-", dir=target.parent))
    try:
        fresh, old = workspace / "new", workspace / "old"
        for name, content in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
