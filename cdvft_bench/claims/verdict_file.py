"""Verdicts as a file, with the environment that judged them. Standard library and core only: a report reads it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from cdvft_bench.claims.verdict import Verification
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import shown, write_file
from cdvft_bench.core.io.reading import read_json

FORMAT = "cdvft-bench verdicts"
VERSION = 1
"""Of the format. 1: the first."""

_ADVICE = "make it anew with 'cdvft-bench verify --output'"


def to_json(verification: Verification, **head: object) -> str:
    """Everything that was found, as the file holds it, ending in a newline; ``head`` comes first."""
    head |= {"format": FORMAT, "version": VERSION, "as_pinned": verification.as_pinned}
    verdicts = [{"as_pinned": verdict.as_pinned} | asdict(verdict) for verdict in verification.verdicts]
    document = head | asdict(verification) | {"verdicts": verdicts}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_verdicts(path: str | Path, verification: Verification) -> None:
    """Write the file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, to_json(verification))


def read_verdicts(path: str | Path) -> Verification:
    """Read the file.

    Raises:
        UserError: it cannot be read, is none of this kind or of a later version, or is damaged.
    """
    document = read_json(path, "verdicts", _ADVICE)
    if not isinstance(document, dict):
        raise UserError(f"verdicts {shown(path)}: it is no JSON object; {_ADVICE}")
    if document.get("format") != FORMAT:
        raise UserError(f"{shown(path)} holds no verdicts; give the file of 'cdvft-bench verify --output'")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"verdicts {shown(path)}: version = {version!r} is none; {_ADVICE}")
    if version > VERSION:
        raise UserError(f"verdicts {shown(path)} have version {version}, this one reads {VERSION}; update cdvft-bench")
    try:
        return _checked(decode(Verification, document))
    except ValueError as error:
        raise UserError(f"verdicts {shown(path)} are damaged: {error}; {_ADVICE}") from None


def _checked(found: Verification) -> Verification:
    """Refuse what no judge writes: a count below what it counts, a name twice, a time that is none."""
    for at, verdict in enumerate(found.verdicts):
        counts = (verdict.hits, verdict.judged, verdict.tried)
        if not 0 <= verdict.hits <= verdict.judged <= verdict.tried or verdict.open < 0:
            raise ValueError(f"verdicts[{at}]: hits, judged and tried settings = {counts} are in no order")
        if verdict.chance is not None and not 0 <= verdict.chance <= 1:
            raise ValueError(f"verdicts[{at}].chance = {verdict.chance} is no probability")
    names = [verdict.claim.id for verdict in found.verdicts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"claim {twice!r} stands twice")
    if found.created and datetime.fromisoformat(found.created).utcoffset() is None:
        raise ValueError(f"created = {found.created!r} names no offset from UTC")
    return found
