"""A case: one method on one layer or model under one workload. Frozen, hashable, with a stable key."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from cdvft_bench.core.errors import MisfitError, UserError
from cdvft_bench.core.text import whole_number

Value = int | float | str | bool
SubjectKind = Literal["layer", "model"]
CasePass = Literal["forward", "step"]

FROZEN = "frozen"
"""The subject without any adapter: a case of this method, and the first baseline of every ratio."""
LORA = "lora r=8"
"""Name of the second baseline of every ratio."""


@dataclass(frozen=True)
class Case:
    """What to predict, count and time.

    Attributes:
        method: registry name; "frozen" is no method: every record's ratio is to the frozen subject.
        hyperparameters: sorted (name, value) pairs given to the method.
        kind: "layer" or "model".
        subject: for a layer, "768x768" (d_in x d_out, with bias), "768x768-nobias", "768x768-int8" (its weight
            quantised, without a bias), or "roberta-base:query" (the first linear module of that model whose name
            has that ending); for a model, its name in the model table, e.g. "minilm".
        batch, sequence: the workload; tokens = batch * sequence.
        dtype: of base weights and activations.
        pass_: "forward" (autograd recording) or "step" (forward, backward, AdamW update).
        device: "cpu" or "cuda".
        seed: of weights and inputs.
    """

    method: str
    hyperparameters: tuple[tuple[str, Value], ...]
    kind: SubjectKind
    subject: str
    batch: int
    sequence: int
    dtype: str = "float32"
    pass_: CasePass = "step"
    device: str = "cpu"
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Rows that the layer sees."""
        return self.batch * self.sequence

    @property
    def plain_label(self) -> str:
        """The method with its hyperparameters as they were given; the methods themselves have shorter words."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.hyperparameters)])

    @cached_property
    def key(self) -> str:
        """Stable key: the same case has the same key on every machine and in every version."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def todays_label(label: str) -> str:
    """A label as today's methods write it: older files name the path ``auto``, and a default block size ``gcd``."""
    return re.sub(r"\bp=(\w+) auto\b", r"p=\1", label).replace("p=gcd", "p=d")


def baselines(case: Case) -> dict[str, Case]:
    """What a case is timed beside, by name: the frozen subject and LoRA of rank 8, without the case itself."""
    found = {
        FROZEN: replace(case, method=FROZEN, hyperparameters=()),
        LORA: replace(case, method="lora", hyperparameters=(("rank", 8),)),
    }
    return {name: baseline for name, baseline in found.items() if baseline != case}


def case_from(fields: Mapping[str, Any]) -> Case:
    """A case from its JSON, where a pair is a list.

    Raises:
        TypeError, KeyError, ValueError: it is no case.
    """
    pairs = tuple((name, value) for name, value in fields["hyperparameters"])
    return Case(**{**fields, "hyperparameters": pairs})


def parse_value(text: str) -> Value:
    """A hyperparameter's value from text: a number, true or false, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def width_fraction(name: str, value: Value, width: int) -> Value:
    """A block size that may be written as a fraction of the subject's width.

    Args:
        name: of the hyperparameter, for errors. value: "d", "d/4", or anything else, which is returned as it is.
        width: d, the smallest of the subject's widths.

    Raises:
        MisfitError: the divisor does not divide the width.
        UserError: it is a text of another form.
    """
    if not isinstance(value, str):
        return value
    head, slash, divisor = value.partition("/")
    if head != "d" or (slash and not whole_number(divisor)):
        raise UserError(f"{name} = {value!r} is neither an integer nor a fraction of the width such as 'd' or 'd/4'")
    parts = int(divisor or 1)
    if width % parts:
        raise MisfitError(f"{name} = {value!r}: {parts} does not divide the subject's width {width}")
    return width // parts
