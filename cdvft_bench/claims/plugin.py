"""Plugin for pytest: ``pytest --claims my_claims.toml`` collects a ledger's claims as tests.

A test passes when the verdict is the one that the ledger expects, and is skipped where it is
"undecided" or "not measured". Nothing heavy is imported unless the option is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cdvft_bench.claims.judge import Sources
    from cdvft_bench.claims.ledger.claim import Claim
    from cdvft_bench.claims.verdict import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --claims and --claims-records."""
    group = parser.getgroup("claims", "claims judged by cdvft-bench")
    group.addoption(
        "--claims",
        action="append",
        default=[],
        metavar="LEDGER",
        help="collect the claims of this ledger (.toml) as tests; may be given more than once",
    )
    group.addoption(
        "--claims-records",
        action="append",
        default=[],
        metavar="FILE",
        help="records for the clock (.sqlite, .jsonl, .jsonl.gz) or accuracy (.jsonl of train, .csv); may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the ledgers beside what is collected anyway."""
    from cdvft_bench.core.io.files import is_file

    for name in config.getoption("--claims"):
        path = Path(config.invocation_params.dir) / name
        if not is_file(path):
            raise pytest.UsageError(f"--claims {name}: there is no such file")
        if str(path) not in config.args:
            config.args.append(str(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A ledger that --claims names is a file of tests."""
    given: Sequence[str] = parent.config.getoption("--claims")
    start = Path(parent.config.invocation_params.dir)
    if any((start / name).resolve() == file_path.resolve() for name in given):
        collector: pytest.Collector = LedgerFile.from_parent(parent, path=file_path)
        return collector
    return None


class LedgerFile(pytest.File):
    """A ledger."""

    sources: Sources

    def collect(self) -> Iterator[ClaimItem]:
        """Its claims; a ledger that is not as it should be is one error of collection."""
        from cdvft_bench.claims.judge import sources_of
        from cdvft_bench.claims.ledger.read import read_ledger
        from cdvft_bench.core.errors import UserError

        start = Path(self.config.invocation_params.dir)
        records = [start / name for name in self.config.getoption("--claims-records")]
        try:
            ledger = read_ledger(self.path)
            self.sources = sources_of(ledger.folder, records)
        except UserError as error:
            raise self.CollectError(str(error)) from error
        for claim in ledger.claims:
            yield ClaimItem.from_parent(self, name=claim.id, claim=claim)


class NotAsPinned(Exception):  # noqa: N818 - a verdict, no error of the program
    """The verdict is not the one that the ledger expects."""


class ClaimItem(pytest.Item):
    """A claim."""

    def __init__(self, *, claim: Claim, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.claim = claim

    def runtest(self) -> None:
        from cdvft_bench.claims.judge import judge
        from cdvft_bench.claims.ledger.terms import UNSETTLED

        assert isinstance(self.parent, LedgerFile)
        verdict: Verdict = judge(self.claim, self.parent.sources)
        self.user_properties.append(("verdict", verdict.word))
        if not verdict.as_pinned:
            from cdvft_bench.claims.table import told_of

            raise NotAsPinned(told_of(verdict))
        if verdict.word in UNSETTLED:
            pytest.skip(verdict.detail)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from cdvft_bench.core.errors import UserError

        if isinstance(excinfo.value, NotAsPinned | UserError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"claim {self.claim.id}"
