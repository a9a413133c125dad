"""Benchmark, profile and judge parameter-efficient fine-tuning methods.

Public are the names of ``__all__``, with the types that they take and return, and the commands' ``--json``
(docs/schemas.json). Everything else may change without notice. Nothing heavy is imported before a name is used.

- ``make_case``, ``predict``, ``count``, ``time_case``: one case by its three sources.
- ``answer``, ``evaluate_stores``: predictions for devices that were not measured, and how far they miss.
- ``compare_stores``: two stores of records; ``analyse_file``: a profiler's trace; ``verify``: a ledger of claims.
- ``make_method``, ``method_names``, ``parse_methods``: the methods.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvft_bench.analysis.compare import compare_stores
    from cdvft_bench.claims import verify
    from cdvft_bench.methods import make_method, method_names, parse_methods
    from cdvft_bench.predictor.answering.answer import answer
    from cdvft_bench.predictor.evaluation import evaluate_stores
    from cdvft_bench.sweep.evaluate import count, predict, time_case
    from cdvft_bench.sweep.grid import make_case
    from cdvft_bench.timing.traces.analysis import analyse_file

__version__ = "0.1.0"

_HOMES = {
    "analyse_file": "timing.traces.analysis",
    "answer": "predictor.answering.answer",
    "compare_stores": "analysis.compare",
    "count": "sweep.evaluate",
    "evaluate_stores": "predictor.evaluation",
    "make_case": "sweep.grid",
    "make_method": "methods",
    "method_names": "methods",
    "parse_methods": "methods",
    "predict": "sweep.evaluate",
    "time_case": "sweep.evaluate",
    "verify": "claims",
}

__all__ = [
    "__version__",
    "analyse_file",
    "answer",
    "compare_stores",
    "count",
    "evaluate_stores",
    "make_case",
    "make_method",
    "method_names",
    "parse_methods",
    "predict",
    "time_case",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
