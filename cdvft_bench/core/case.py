"""A case: one method on one layer or model under one workload. Frozen, hashable, with a stable key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

Value = int | float | str | bool
SubjectKind = Literal["layer", "model"]
CasePass = Literal["forward", "step"]


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

    @cached_property
    def key(self) -> str:
        """Stable key: the same case has the same key on every machine and in every version."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
