"""Claims: a ledger of what was claimed, and a judge who asks every source. ``verify`` does it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvft_bench.claims.table import VerdictRow, rows, show_verification, to_junit, verdict_table
    from cdvft_bench.claims.verdict import Verdict, Verification, read_verdicts, to_json, write_verdicts

__all__ = [
    "Verdict",
    "VerdictRow",
    "Verification",
    "read_verdicts",
    "rows",
    "show_verification",
    "to_json",
    "to_junit",
    "verdict_table",
    "verify",
    "write_verdicts",
]

# pytest imports this package for its plugin at every start, so nothing heavy is imported until it is asked for.
_HOMES = {
    "Verdict": "verdict",
    "VerdictRow": "table",
    "Verification": "verdict",
    "read_verdicts": "verdict",
    "rows": "table",
    "show_verification": "table",
    "to_json": "verdict",
    "to_junit": "table",
    "verdict_table": "table",
    "write_verdicts": "verdict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def verify(
    ledger: str | Path | None = None,
    records: Sequence[str | Path] = (),
    only: Sequence[str] = (),
    refit: bool = False,
    columns: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Verification:
    """Judge the claims of a ledger.

    Args:
        ledger: a ledger file; None is the suite's own, on CDVFT and BCA.
        records: what the clock, accuracy and profiles read: stores (.sqlite, .jsonl, .jsonl.gz), results of
            ``cdvft-bench train`` (.jsonl), fine-tuning runs that were made elsewhere (tables, or PEFT's results, see
            ``accuracy.published.reading``), and the ``findings.jsonl`` of an expressivity profile.
        only: patterns of claims' ids, as "flops-*"; empty for all.
        refit: fit anew what is otherwise read from a recorded profile: minutes instead of seconds.
        columns: of tables of runs, by the names that ``accuracy.published.run.COLUMNS`` lists.
        workers: processes that judge; more than one are forked, which Linux alone does well.

    Raises:
        UserError: the ledger or a file of records is not as it should be, or a module of a ledger fails.
    """
    from cdvft_bench.claims.ledger.read import read_ledger

    book = None if ledger is None else read_ledger(ledger)  # its mistakes are told before torch is loaded
    from cdvft_bench.claims.judge import Choice, verify_ledger

    return verify_ledger(book, records, Choice(tuple(only), refit), columns, workers)
