"""Names that users write: what they are nearest to when they are none that is known."""

from collections.abc import Iterable
from difflib import get_close_matches

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import listed, shorten

MOST = 3
"""Names that are guessed at."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that ``name`` may have been meant for, best first: those spelt much alike, else those around it.

    Upper and lower case are the same, as are a space, "-" and "_".
    """
    plain = {_plain(one): one for one in reversed(list(known))}
    asked = _plain(name)[:80]
    found = get_close_matches(asked, plain, MOST, 0.6) if asked else []
    if not found and len(asked) > 1:
        found = [one for one in reversed(plain) if asked in one][:MOST]
    return [plain[one] for one in found]


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans(" _", "--"))


def guess(name: str, known: Iterable[str]) -> str:
    """``did you mean a or b? ``, or nothing where no known name is near."""
    near = nearest(name, known)
    return f"did you mean {listed(near, 'or')}? " if near else ""


def not_known(
    what: str, name: str, known: Iterable[str], state: str = "is not known", rule: str = "use one of"
) -> UserError:
    """The error of a name that is none of ``known``: it says what was near it, and what there is."""
    names = list(known)
    said = " ".join(filter(None, (what, shorten(repr(name), 80), state)))
    return UserError(f"{said}; {guess(name, names)}{rule} {', '.join(names) or 'none'}")
