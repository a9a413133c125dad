"""Ledgers: TOML files of claims, read strictly. The format is described in docs/claims.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cdvft_bench.claims.ledger.checks import check_keys, text_at
from cdvft_bench.claims.ledger.claim import Claim, Ledger
from cdvft_bench.claims.ledger.entry import claim_of
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import packaged, parse_toml, read_text

_LEDGER_KEYS = ("title", "version")
_FOLDER = ("cdvft_bench.claims", "ledgers")
_OWN = ("cdvft.toml", "expressivity.toml")
OWN = ", ".join(_OWN)
"""What the suite's own ledger is called, which is two files."""
_NAMED = ("cdvft", "expressivity", "kernels", "triton")


def read_ledger(path: str | Path | None = None) -> Ledger:
    """Read a ledger.

    Args:
        path: a file, or the name of one that comes with the suite, such as "triton"; None is the suite's own: the
            papers' claims, then what the suite found itself.

    Raises:
        UserError: the file or an entry is not as it should be; the message names file, entry and rule.
    """
    if path is None:
        papers, own = (parse_ledger(packaged(*_FOLDER, name), name, Path()) for name in _OWN)
        return replace(papers, path=OWN, claims=papers.claims + own.claims)
    if str(path) in _NAMED:
        return parse_ledger(packaged(*_FOLDER, f"{path}.toml"), f"{path}.toml", Path())
    return parse_ledger(read_text(path, "ledger", "give a TOML file of claims"), shown(path), Path(path).parent)


def parse_ledger(text: str, name: str, folder: Path) -> Ledger:
    """Parse a ledger's text; ``name`` is for messages, ``folder`` where its modules may lie. Raises UserError."""
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise UserError(f"ledger {name}: {error}") from error
    try:
        check_keys(document, ("ledger", "claim"), "a ledger")
        head = document.get("ledger")
        if not isinstance(head, dict):
            raise UserError("a ledger needs a [ledger] table with title and version")
        check_keys(head, _LEDGER_KEYS, "[ledger]")
        title, version = text_at(head, "title", "[ledger]"), head.get("version")
        if version != 1 or isinstance(version, bool):
            raise UserError(f"[ledger]: version = {version!r} must be 1, the version of the format")
        entries = document.get("claim")
        if not (isinstance(entries, list) and entries and all(isinstance(e, dict) for e in entries)):
            raise UserError("a ledger needs at least one [[claim]]")
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    claims: dict[str, Claim] = {}
    for i, entry in enumerate(entries, 1):
        label = entry["id"] if isinstance(entry.get("id"), str) else f"number {i}"
        try:
            claim = claim_of(entry, folder)
            if claim.id in claims:
                raise UserError("this id stands twice; every claim needs one of its own")
        except UserError as error:
            raise UserError(f"{name}, claim {label!r}: {error}") from error
        claims[claim.id] = claim
    return Ledger(name, folder, title, version, tuple(claims.values()))
