"""What an einsum multiplies and adds: contracted pair by pair, as torch does, not all operands at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Sizes = dict[str, int]
"""Size of each label of an operand; a label that it lacks has size 1, as one that it broadcasts."""


@dataclass
class Contraction:
    """Arithmetic of an einsum.

    Attributes:
        macs: multiply-adds of its matrix products. products: entry by entry, where a pair has nothing to sum over.
        additions: entries that are summed outside of products.
    """

    macs: int = 0
    products: int = 0
    additions: int = 0


def contract(equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int] | None = None) -> Contraction:
    """Follow an einsum through its pairs.

    Args:
        equation: as ``torch.einsum`` takes it, with or without "->" and "...".
        shapes: of the operands.
        path: pairs of positions to contract, one after the other; None goes from left to right.
    """
    operands, kept = _read(equation.replace(" ", ""), shapes)
    work = Contraction()
    # In how many operands a label that is summed over still stands.
    counts = Counter(label for one in operands for label, n in one.items() if n != 1 and label not in kept)
    steps = iter(path or ())
    while len(operands) > 1:
        i, j = sorted((next(steps), next(steps))) if path else (0, 1)
        b, a = operands.pop(j), operands.pop(i)
        made = _pair(a, b, counts, work)
        operands.insert(len(operands) if path else 0, made)
    left = operands[0]
    # One operand is always summed; of several only what no pair has summed before.
    if any(n != 1 or len(shapes) == 1 for label, n in left.items() if label not in kept):
        work.additions += math.prod(left.values())
    return work


def _pair(a: Sizes, b: Sizes, counts: Counter[str], work: Contraction) -> Sizes:
    together: list[str] = []
    alone_a: list[str] = []
    alone_b: list[str] = []
    for label in list(counts):
        in_a, in_b = a.get(label, 1) != 1, b.get(label, 1) != 1
        if in_a and in_b:
            counts[label] -= 1
            if counts[label] == 1:
                together.append(label)
                counts[label] = 0
        elif counts[label] == 1 and (in_a or in_b):
            (alone_a if in_a else alone_b).append(label)
            counts[label] = 0
    a, b = _summed(a, alone_a, work), _summed(b, alone_b, work)
    whole = {label: max(a.get(label, 1), b.get(label, 1)) for label in {**a, **b}}
    if together:
        work.macs += math.prod(whole.values())
    else:
        work.products += math.prod(whole.values())
    return {label: 1 if label in together else n for label, n in whole.items()}


def _summed(operand: Sizes, labels: Sequence[str], work: Contraction) -> Sizes:
    if not labels:
        return operand
    work.additions += math.prod(operand.values())
    return {label: 1 if label in labels else n for label, n in operand.items()}


def _read(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[Sizes], set[str]]:
    """Sizes by label of each operand, and the labels of the result."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    operands = []
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        middle = len(shape) - len(before) - len(after) if dots else 0
        # The dimensions of an ellipsis line up at its right end.
        labels = [*before, *(f".{middle - i}" for i in range(middle)), *after]
        operands.append(dict(zip(labels, shape, strict=True)))
    dotted = {label for one in operands for label in one if label.startswith(".")}
    if arrow:
        return operands, set(right.replace("...", "")) | (dotted if "..." in right else set())
    seen = Counter(label for term in terms for label in term.replace("...", ""))
    return operands, dotted | {label for label, n in seen.items() if n == 1}
