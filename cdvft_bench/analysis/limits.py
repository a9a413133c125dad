"""R2: whether FFTs limit the methods that rest on them, by dtype, widths, shape, base and device, from what ran."""

from __future__ import annotations

from collections.abc import Callable

from cdvft_bench.analysis.evidence import FFT_METHODS, Answer, Evidence, Given, grouped, keys, ran
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import layer_shape
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural

QUESTION = (
    "Does dependence on FFTs limit it: dtype, widths that are not powers of two, non-square layers, quantised bases, "
    "hardware?"
)
ON_A_CPU = "cdvft-bench sweep fft-limits --store fft-limits.sqlite"
ON_A_GPU = "cdvft-bench sweep paper-layers --store paper-layers.sqlite"
CLAIMS = ("flops-n-log-n-odd-widths", "flops-n-log-n-prime-widths")


def transforms(given: Given) -> Answer:
    """R2. "yes" where FFT methods failed; "no" where all ran in every doubted case; "in part" where one is open.

    A failure counts where a method without FFTs ran on the same layer, in the same dtype, on the same device: else it
    says nothing of FFTs.
    """
    others = {_place(r) for s in given.sections for r in s.ok if r.case.method not in FFT_METHODS}
    records = [r for r in given.fft_records() if r.status == "ok" or _place(r) in others]
    evidence: list[Evidence] = []
    here: list[str] = []
    elsewhere: list[str] = []
    shaped = [(r, shape) for r in records if (shape := _shape(r)) is not None]

    def of_layers(words: Callable[[LinearShape], str]) -> dict[str, list[Record]]:
        by = grouped(shaped, lambda pair: words(pair[1]))
        return {word: [record for record, _ in rows] for word, rows in by.items()}

    for title, groups, expected in (
        ("dtype {}", grouped(records, lambda r: r.case.dtype), ("float32", "bfloat16", "float16")),
        ("widths: {}", of_layers(_widths), ("a power of two", "no power of two")),
        ("layers: {}", of_layers(_sides), ("square", "not square")),
        ("base weights: {}", of_layers(_base), (_QUANTISED,)),
        ("device {}", grouped(records, lambda r: r.case.device), ("cpu", "cuda")),
    ):
        evidence += [ran(title.format(clean(value)), rows) for value, rows in groups.items()]
        for value in expected:
            if value not in groups:
                (elsewhere if value == "cuda" else here).append(title.format(value))
    missing = [
        f"{NOT_MEASURED}: {listed(what)}; {how}"
        for what, how in ((here, f"measured by {ON_A_CPU}"), (elsewhere, f"measured on a GPU by {ON_A_GPU}"))
        if what
    ]
    evidence += [said for claim in CLAIMS if (said := given.verdict(claim))]
    if not records:
        plain = "No record of CDVFT or BCA is here that ran, or failed where another method ran."
        return Answer("R2", QUESTION, NOT_MEASURED, plain, tuple(evidence), tuple(missing))
    failed = [r for r in records if r.status == "failed"]
    word = "yes" if failed else "in part" if missing else "no"
    if failed:
        where = sorted({f"{clean(r.case.subject)} in {clean(r.case.dtype)} on {clean(r.case.device)}" for r in failed})
        plain = f"{plural(len(failed), 'case')} of {len(records):,} failed where others ran: {listed(where[:4])}."
        evidence.insert(0, Evidence(plain, "records", keys(failed)))
    else:
        tried = "what was not tried is listed as open" if missing else "nothing that was doubted is left to try"
        plain = f"All {plural(len(records), 'case')} of CDVFT and BCA ran; {tried}."
    return Answer("R2", QUESTION, word, plain, tuple(evidence), tuple(missing))


def _place(record: Record) -> tuple[object, ...]:
    case = record.case
    return case.kind, case.subject, case.dtype, case.device, record.environment


_QUANTISED = "quantised to int8"


def _shape(record: Record) -> LinearShape | None:
    """Of a layer; None for a model, and for a name that is no layer's."""
    if record.case.kind != "layer":
        return None
    try:
        return layer_shape(record.case.subject)
    except UserError:
        return None


def _widths(shape: LinearShape) -> str:
    widths = (int(shape.d_in), int(shape.d_out))
    return "a power of two" if all(w & (w - 1) == 0 for w in widths) else "no power of two"


def _sides(shape: LinearShape) -> str:
    return "square" if shape.d_in == shape.d_out else "not square"


def _base(shape: LinearShape) -> str:
    return _QUANTISED if shape.quantised else "in the dtype of the activations"
