"""From one machine's profiles to any model on any GPU: predicted times, memory and traffic, and how far to trust them.

The formulas are the closed forms (``methods``, ``analytic``, ``execution``); rates come from
``cdvft-bench calibrate`` or a table of datasheets; recorded profiles say what share of them a device reaches, and how
far predictions miss. Reads records, never measures. Everything that leaves this room is a prediction and says so.

- ``results``: what is answered, as dataclasses.
- ``evaluate(records, environments, rates=None) -> Evaluation``: predictions against recorded times.
- ``evaluate_stores(stores, rates=None) -> Evaluation``: the same of whole stores, with the ``rates.json`` beside them.
- ``compare_published(found=None) -> PublishedComparison``: against training times that others published.
- ``answer(model, gpu, ...) -> Answer``: ranked choices for a model on a GPU.
"""

from cdvft_bench.predictor.answering.answer import answer
from cdvft_bench.predictor.evaluation import evaluate, evaluate_stores, read_profiles
from cdvft_bench.predictor.published_times import compare_all, compare_published
from cdvft_bench.predictor.results import (
    Answer,
    Choice,
    Efficiency,
    ErrorRow,
    Evaluation,
    Farthest,
    MemoryBudget,
    Prediction,
    PublishedComparison,
    PublishedPrediction,
    Scaling,
    Serving,
)

__all__ = [
    "Answer",
    "Choice",
    "Efficiency",
    "ErrorRow",
    "Evaluation",
    "Farthest",
    "MemoryBudget",
    "Prediction",
    "PublishedComparison",
    "PublishedPrediction",
    "Scaling",
    "Serving",
    "answer",
    "compare_all",
    "compare_published",
    "evaluate",
    "evaluate_stores",
    "read_profiles",
]
