"""What a record is called on a page, a figure, a terminal: settings, paths of execution, layers, machines."""

import re
import shlex
from collections.abc import Iterable

from cdvft_bench.core.case import FROZEN, Case, Value, todays_label
from cdvft_bench.core.environment import plain_fields
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean
from cdvft_bench.methods.base import method_class

CIRCULANT = ("cdvft", "block_circulant", "c3a")
"""Methods whose block size p may be the layer's whole width d."""

PATHS = {"auto": "", "fft": "torch.fft", "handwritten": "paper's backward"}
"""Paths whose name in a label is not their own. ``auto`` is what a user gets, so it goes without saying."""

WORKED_THROUGH = "fft"
"""The path of records of CDVFT and BCA that name none."""


def hyperparameter(case: Case, name: str, default: Value | None = None) -> Value | None:
    """A hyperparameter of the case, or ``default`` where it was left unset."""
    return dict(case.hyperparameters).get(name, default)


def is_frozen(case: Case) -> bool:
    """Whether this is the frozen subject, a baseline of every ratio."""
    return case.method == FROZEN


def is_lora8(case: Case) -> bool:
    """Whether this is LoRA of rank 8, the other baseline."""
    rank = hyperparameter(case, "r", hyperparameter(case, "rank", 8))
    return case.method == "lora" and rank == 8


def path_of(case: Case) -> str:
    """The path that executes the case, as the suite calls it; "" for a method that has one way only."""
    if case.method not in ("cdvft", "block_circulant"):
        return ""
    return str(hyperparameter(case, "path", WORKED_THROUGH))


def path_title(path: str) -> str:
    """How a label writes a path; "" for ``auto``."""
    return PATHS.get(path, clean(path).replace("_", " "))


def in_words(text: object) -> str:
    """A text that some version of the suite made, with paths as a reader knows them, see :func:`todays_label`."""
    return todays_label(re.sub(r"\bhandwritten\b", PATHS["handwritten"], clean(text)))


def title_of(method: str) -> str:
    """How tables and figures write a method's name."""
    try:
        return method_class(method).title
    except UserError:
        return clean(method)


def widths(records: Iterable[Record]) -> dict[tuple[str, str], int]:
    """The width d of every subject, by (kind, name), as far as names and block sizes tell.

    A layer written "768x3072" has it in its name: the smaller side. Of any other subject it is the largest block size
    that a circulant method was recorded with.
    """
    found: dict[tuple[str, str], int] = {}
    for record in records:
        case = record.case
        sides = re.match(r"(\d+)x(\d+)", case.subject) if case.kind == "layer" else None
        size = hyperparameter(case, "block_size") if case.method in CIRCULANT else None
        if sides:
            found[case.kind, case.subject] = min(int(sides[1]), int(sides[2]))
        elif isinstance(size, int):
            found[case.kind, case.subject] = max(size, found.get((case.kind, case.subject), 0))
    return found


def block_size(case: Case, d: int | None) -> int | None:
    """The block size p of a circulant method, d where it was left unset; None for other methods and where d is not
    known."""
    if case.method not in CIRCULANT:
        return None
    size = hyperparameter(case, "block_size")
    return size if isinstance(size, int) else d


def setting(record: Record, d: int | None = None) -> str:
    """The method with its hyperparameters, without its path: "CDVFT m=2 p=d".

    Args:
        record: whose label was made by some version of the suite.
        d: width of the subject, see :func:`widths`.
    """
    words = clean(record.label).split(" ")
    path, size = hyperparameter(record.case, "path") or path_of(record.case), block_size(record.case, d)
    if path and len(words) > 1 and words[-1] == clean(path):
        words = words[:-1]
    if record.case.method in CIRCULANT:
        shown = "d" if size is None or size == d else str(size)
        words = [f"p={shown}" if re.fullmatch(r"p=(\d+|d|gcd)", word) else word for word in words]
    return " ".join(words)


def label(record: Record, d: int | None = None) -> str:
    """The setting with its path in words where it is not ``auto``."""
    path = path_title(path_of(record.case))
    return f"{setting(record, d)}, {path}" if path else setting(record, d)


def machine(environment: object, device: str) -> str:
    """What a record ran on: the GPU, or the CPU with its number of cores, of its environment row."""
    fields = plain_fields(environment)
    if not fields:
        return "not recorded"
    gpus = fields.get("gpus") or fields.get("gpu")
    gpu = gpus[0] if isinstance(gpus, list | tuple) and gpus else gpus
    if device != "cpu" and gpu:
        return clean(gpu)
    cpu, cores = fields.get("cpu"), fields.get("cores")
    named = clean(cpu or "not recorded")
    return f"{named}, {cores} cores" if isinstance(cores, int) and cpu else named


def arguments(case: Case) -> str:
    """The hyperparameters as a command line takes them, for a POSIX shell, whatever the record holds."""
    return " ".join(shlex.quote(clean(f"{name}={value}")) for name, value in case.hyperparameters)
