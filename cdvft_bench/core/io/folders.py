"""Put a report's files where they belong, as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder, make_folders, remove_folders, shown, unwritable

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
