"""R2: whether FFTs limit the methods that rest on them, by dtype, widths, shape, base and device, from what ran."""

import re
from collections.abc import Callable

from cdvft_bench.analysis.frame import Entry
from cdvft_bench.analysis.questions.evidence import FFT_METHODS, Answer, Evidence, Given, Word, grouped, keys, ran
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural

QUESTION = (
    "Does dependence on FFTs limit it: dtype, widths that are not powers of two, non-square layers, quantised bases, "
    "hardware?"
)
ON_A_CPU = "cdvft-bench sweep fft-limits --store fft-limits.sqlite"
ON_A_GPU = "cdvft-bench sweep paper-layers --store paper-layers.sqlite"
CLAIMS = ("flops-n-log-n-odd-widths", "flops-n-log-n-prime-widths")
QUANTISED = "quantised to int8"


def transforms(given: Given) -> Answer:
    """R2. "yes" where FFT methods failed; "no" where all ran in every doubted case; "in part" where one is open.

    A failure counts where a method without FFTs ran on the same layer, in the same dtype, on the same device: else it
    says nothing of FFTs. Widths and shapes are those of layers that have them in their names.
    """
    others = {_place(row) for row in given.done if row["method"] not in FFT_METHODS}
    rows = [
        row for row in given.rows if row["method"] in FFT_METHODS and (row["status"] == "ok" or _place(row) in others)
    ]
    evidence: list[Evidence] = []
    here: list[str] = []
    elsewhere: list[str] = []
    shaped = [(row, sides) for row in rows if (sides := _sides(row)) is not None]

    def of_layers(words: Callable[[Entry, tuple[int, int]], str]) -> dict[str, list[Entry]]:
        by = grouped(shaped, lambda pair: words(*pair))
        return {word: [row for row, _ in found] for word, found in by.items()}

    for title, groups, expected in (
        ("dtype {}", grouped(rows, lambda row: str(row["dtype"])), ("float32", "bfloat16", "float16")),
        ("widths: {}", of_layers(_widths), ("a power of two", "no power of two")),
        ("layers: {}", of_layers(lambda _, d: "square" if d[0] == d[1] else "not square"), ("square", "not square")),
        ("base weights: {}", of_layers(_base), (QUANTISED,)),
        ("device {}", grouped(rows, lambda row: str(row["device"])), ("cpu", "cuda")),
    ):
        evidence += [ran(title.format(clean(value)), found) for value, found in groups.items()]
        for value in expected:
            if value not in groups:
                (elsewhere if value == "cuda" else here).append(title.format(value))
    missing = [
        f"{NOT_MEASURED}: {listed(what)}; {how}"
        for what, how in ((here, f"measured by {ON_A_CPU}"), (elsewhere, f"measured on a GPU by {ON_A_GPU}"))
        if what
    ]
    evidence += [said for claim in CLAIMS if (said := given.verdict(claim))]
    if not rows:
        plain = "No record of CDVFT or BCA is here that ran, or failed where another method ran."
        return Answer("R2", QUESTION, "not measured", plain, tuple(evidence), tuple(missing))
    failed = [row for row in rows if row["status"] == "failed"]
    word: Word = "yes" if failed else "in part" if missing else "no"
    if failed:
        where = sorted({f"{row['subject']} in {row['dtype']} on {row['device']}" for row in failed})
        plain = f"{plural(len(failed), 'case')} of {len(rows):,} failed where others ran: {listed(where[:4])}."
        evidence.insert(0, Evidence(plain, "records", keys(failed)))
    else:
        tried = "what was not tried is listed as open" if missing else "nothing that was doubted is left to try"
        plain = f"All {plural(len(rows), 'case')} of CDVFT and BCA ran; {tried}."
    return Answer("R2", QUESTION, word, plain, tuple(evidence), tuple(missing))


def _place(row: Entry) -> tuple[object, ...]:
    return tuple(row[name] for name in ("kind", "subject", "dtype", "device", "environment"))


def _sides(row: Entry) -> tuple[int, int] | None:
    """Widths of a layer that is named by them; None for a model, and for a name that is no layer's."""
    sides = re.fullmatch(r"(\d+)x(\d+)(-nobias|-int8)?", row["subject"]) if row["kind"] == "layer" else None
    return (int(sides[1]), int(sides[2])) if sides else None


def _widths(_: Entry, sides: tuple[int, int]) -> str:
    return "a power of two" if all(width & (width - 1) == 0 for width in sides) else "no power of two"


def _base(row: Entry, _: tuple[int, int]) -> str:
    return QUANTISED if row["subject"].endswith("-int8") else "in the dtype of the activations"
