"""The bytes of a trace file, plain, compressed or in an archive, a block at a time.

A compressed file that breaks off, as a killed job leaves it, gives what it holds until there.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.traces.files.notes import Notes

BLOCK = 1 << 19
LIMIT = 16 << 30
"""Bytes that a compressed trace may unpack to."""
WAY_OUT = "give a trace exported by torch.profiler's export_chrome_trace (.json or .json.gz)"

_ZIP, _ZSTD = b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_OPENERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_TAR, _TAR_AT = b"ustar", 257
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SUFFIXES = (".json", ".json.gz", ".trace", ".gz", ".trace.json.gz")


def blocks(path: Path, notes: Notes) -> Iterator[bytes]:
    """The file's text as UTF-8, a block at a time.

    Raises:
        UserError: the file cannot be read, or unpacks to more than ``LIMIT`` bytes.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == _ZIP:
                yield from _utf8(_from_zip(path, notes), notes)
                return
            file.seek(0)
            stream = _unpacked(file, notes)
            first = next(stream, b"")
            if first[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
                yield from _utf8(_from_tar(path, notes), notes)
            else:
                yield from _utf8(chain([first], stream), notes)
    except FileNotFoundError as error:
        raise UserError(f"trace {str(path)!r} is not there; {WAY_OUT}") from error
    except IsADirectoryError as error:
        raise UserError(f"trace {str(path)!r} is a folder; {WAY_OUT}") from error
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        tarfile.TarError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"trace {str(path)!r} cannot be read: {error}; {WAY_OUT}") from error


def _unpacked(file: IO[bytes] | _Reader, notes: Notes) -> Iterator[bytes]:
    """A file's bytes, unpacked if they are packed, whatever the file is called."""
    head = file.read(BLOCK)
    if head.startswith(_ZSTD):
        raise UserError("the trace is packed by zstd; unpack it with zstd -d and give the .json")
    every = chain([head], iter(lambda: file.read(BLOCK), b""))
    opener = next((opener for mark, opener in _OPENERS if head.startswith(mark)), None)
    yield from every if opener is None else _counted(_decompressed(opener(_Reader(every)), notes))


def _decompressed(stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, notes: Notes) -> Iterator[bytes]:
    any_yet = False
    while True:
        try:
            block = stream.read1(BLOCK)
        except EOFError:
            notes.mend("the compressed file is cut off: what it held until there is read")
            return
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if not any_yet:
                raise
            after = "Not a gzipped file" in str(error)
            what = "bytes after the end of the compressed file were skipped"
            notes.mend(what if after else f"the compressed file is damaged ({error}): what it held until there is read")
            return
        if not block:
            return
        any_yet = True
        yield block


def _counted(stream: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for block in stream:
        total += len(block)
        if total > LIMIT:
            raise UserError(
                f"the trace unpacks to more than {LIMIT:,} bytes, the most that is read; unpack it yourself"
            )
        yield block


def _from_zip(path: Path, notes: Notes) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        name = _chosen(sizes, notes)
        with archive.open(name) as member:
            yield from _counted(_unpacked(member, notes))


def _from_tar(path: Path, notes: Notes) -> Iterator[bytes]:
    with tarfile.open(path, "r:*") as archive:
        members: dict[str, tarfile.TarInfo] = {}
        try:
            for info in archive:
                if info.isfile():
                    members[info.name] = info
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            notes.mend(f"the archive is cut off ({error}): what it held until there is read")
        chosen = members[_chosen({name: info.size for name, info in members.items()}, notes)]
    # Its bytes come from the unpacked archive itself, which gives what there is of a member that is cut off.
    with path.open("rb") as file:
        yield from _unpacked(_Reader(_part(_unpacked(file, notes), chosen.offset_data, chosen.size)), notes)


def _part(stream: Iterator[bytes], start: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a stream from ``start`` on, or what there is of them."""
    at = 0
    for block in stream:
        piece = block[max(start - at, 0) : max(start + size - at, 0)]
        at += len(block)
        if piece:
            yield piece
        if at >= start + size:
            return


class _Reader:
    """The bytes of a stream as a file that is read in order."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._kept = b""

    def read(self, size: int) -> bytes:
        while len(self._kept) < size:
            block = next(self._stream, b"")
            if not block:
                break
            self._kept += block
        given, self._kept = self._kept[:size], self._kept[size:]
        return given


def _chosen(sizes: dict[str, int], notes: Notes) -> str:
    """The largest file of an archive that looks like a trace, or the largest of all."""
    if not sizes:
        raise UserError(f"the archive holds no file; {WAY_OUT}")
    named = [name for name in sizes if name.lower().endswith(_SUFFIXES)] or list(sizes)
    name = max(named, key=lambda n: (sizes[n], n))
    others = f", the largest of {len(named)} traces in it" if len(named) > 1 else ""
    notes.say(f"read from an archive: {name!r}{others}")
    return name


def _utf8(stream: Iterator[bytes], notes: Notes) -> Iterator[bytes]:
    """Without a byte-order mark, and recoded where the mark says that it is not UTF-8."""
    first = next(stream, b"")
    for mark, encoding in _MARKS:
        if first.startswith(mark):
            notes.mend("a byte-order mark was skipped" if encoding == "utf-8" else f"the text is {encoding}")
            first = first[len(mark) :]
            if encoding != "utf-8":
                decode = codecs.getincrementaldecoder(encoding)("replace")
                yield decode.decode(first).encode("utf-8", "replace")
                for block in stream:
                    yield decode.decode(block).encode("utf-8", "replace")
                return
            break
    yield from chain([first], stream)
