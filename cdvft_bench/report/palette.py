"""One look for everything that is drawn: a colour for light and dark ground and a marker for every method."""

from collections.abc import Iterable
from dataclasses import dataclass

INK, FAINT, GRID = "#1a1a1a", "#8a8a8a", "#dddddd"


@dataclass(frozen=True)
class Look:
    """Colours on light and on dark ground, and matplotlib's name of the marker."""

    color: str
    dark: str
    marker: str


# Okabe and Ito's and Paul Tol's colours for colour-blind readers; markers say the same again.
KNOWN: dict[str, Look] = {
    "cdvft": Look("#d55e00", "#ff9248", "o"),
    "block_circulant": Look("#b27c00", "#e3b341", "s"),
    "lora": Look("#0072b2", "#58aee8", "^"),
    "dora": Look("#4a93c4", "#93cdf2", "v"),
    "c3a": Look("#009e73", "#3ecfa0", "D"),
    "fourierft": Look("#b8568f", "#e68fc0", "P"),
    "vera": Look("#882255", "#d77ba8", "X"),
    "boft": Look("#332288", "#a79bf5", "h"),
    "frozen": Look("#6f6f6f", "#a4a8ad", "|"),
    "full": Look("#222222", "#dfe1e4", "*"),
    "head": Look("#6f6f6f", "#a4a8ad", "x"),
    "base": Look("#6f6f6f", "#a4a8ad", "+"),
}
_OTHERS = (
    ("#117733", "#63bd7d"),
    ("#aa4499", "#e08fd3"),
    ("#661100", "#d98a78"),
    ("#6699cc", "#9cc4ec"),
    ("#888811", "#c9c95a"),
    ("#44aa99", "#7fd6c8"),
)
_MARKERS = ("<", ">", "p", "d", "8")


class Palette:
    """The look of every method of one page: fixed for the well known, handed out in order to the rest."""

    def __init__(self, methods: Iterable[str] = ()) -> None:
        self._looks = dict(KNOWN)
        for i, name in enumerate(sorted({m for m in methods if m not in KNOWN})):
            self._looks[name] = Look(*_OTHERS[i % len(_OTHERS)], _MARKERS[i % len(_MARKERS)])

    def __getitem__(self, method: str) -> Look:
        return self._looks.get(method, Look(FAINT, "#9aa0a6", "o"))
