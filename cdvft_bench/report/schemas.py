"""What ``--json`` prints, by command, as JSON Schema: docs/schemas.json is made of it.

Every command prints one object with the key "schema", the version of these schemas; what would be a list stands
under "rows". A version keeps its keys: one that goes or changes its meaning makes a new version, new ones do not.
"""

from inspect import cleandoc
from typing import Any, TypedDict

import msgspec

from cdvft_bench.analysis.compare import Comparison
from cdvft_bench.claims.verdict import Verification
from cdvft_bench.core.counted import Counted, CountedNetwork
from cdvft_bench.core.record import Predicted
from cdvft_bench.core.timed import SelfTest, Timed, TraceSummary
from cdvft_bench.counting.hardware import Executed
from cdvft_bench.execution.planner import Estimate, Problem
from cdvft_bench.predictor.results import Answer, Evaluation, PublishedComparison
from cdvft_bench.report.ranks import Ranked
from cdvft_bench.sweep.doctor import Finding
from cdvft_bench.sweep.network_cost import NetworkCost
from cdvft_bench.timing.traces.analysis import Comparison as TraceComparison
from cdvft_bench.timing.traces.summary.result import Detail


class CountedAndExecuted(TypedDict):
    """count --hardware."""

    counted: Counted
    executed: Executed


class NetworkCounted(TypedDict):
    """count of a whole network."""

    predicted: NetworkCost
    counted: CountedNetwork


class NetworkUtilised(NetworkCounted):
    """count --step-time: the share of the peak, too."""

    utilisation: float


class EvaluatedAndPublished(TypedDict):
    """evaluate."""

    evaluation: Evaluation
    published: PublishedComparison


class Planned(TypedDict):
    """plan."""

    problem: Problem
    rates: str
    device: str
    paths: list[Estimate]
    not_available: dict[str, str]


class Findings(TypedDict):
    """doctor."""

    rows: list[Finding]


class Rows(TypedDict):
    """list: the keys of a row depend on what is listed."""

    rows: list[dict[str, Any]]


PRINTED: dict[str, tuple[Any, ...]] = {
    "predict": (Predicted, NetworkCost),
    "count": (Counted, CountedAndExecuted, NetworkCounted, NetworkUtilised),
    "time": (Timed,),
    "plan": (Planned,),
    "doctor": (Findings,),
    "selftest": (SelfTest,),
    "answer": (Answer,),
    "evaluate": (EvaluatedAndPublished,),
    "compare": (Comparison,),
    "trace": (TraceSummary, TraceComparison),
    "list": (Rows,),
    "verify": (Verification,),
    "rank": (Ranked,),
}
"""Types of what each command may print. ``trace`` of one file has ``detail`` beside the summary's keys; ``verify`` has
the ``format`` and ``version`` of its file, and ``as_pinned``, a verdict's and the whole ledger's."""


def schemas(version: int) -> dict[str, Any]:
    """JSON Schema (2020-12) of every command's output, whose keys are of a version."""
    types = [one for some in (*PRINTED.values(), (Detail,)) for one in some]
    found, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    by_type = dict(zip(map(id, types), found, strict=True))
    versioned = {"type": "object", "properties": {"schema": {"const": version}}, "required": ["schema"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What cdvft-bench --json prints, version {version}",
        "properties": {
            name: {"allOf": [versioned, {"anyOf": [by_type[id(one)] for one in some]}]}
            for name, some in PRINTED.items()
        },
        "$defs": _settled(components),
    }


def _settled(node: Any) -> Any:
    """A schema without what versions of msgspec write differently: docstrings' margins, defaults that are empty."""
    if isinstance(node, list):
        return [_settled(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _settled(one) for key, one in node.items() if key != "default" or one not in ([], {})}
    said = kept.get("description")
    return {**kept, "description": cleandoc(said)} if isinstance(said, str) else kept
