"""``python -m cdvft_bench.claims [--short] [LEDGER] [RECORDS]...`` prints the verdicts as a Markdown table.

``docs/verdicts.md`` is what it prints, the README's table what it prints with ``--short``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cdvft_bench.claims import verify
from cdvft_bench.claims.table import short_table, summary, verdict_table
from cdvft_bench.core.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Judge, print, and return the exit status: 1 where a verdict is not as pinned, 2 for a user's mistake."""
    short = "--short" in arguments
    arguments = [a for a in arguments if a != "--short"]
    try:
        verification = verify(arguments[0] if arguments else None, arguments[1:])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(short_table(verification) if short else verdict_table(verification), end="")
    print(summary(verification), file=sys.stderr)
    return 0 if verification.as_pinned else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
