"""Near-copies among texts: found exactly, without comparing every pair.

Two texts are near-copies when the sets of their words have a Jaccard index, |common| / |either|, of at least a
threshold. A retweet, a text with a changed name or a cut end stands in two splits otherwise, and a test score then
rewards memory. Pairs are found by prefix filtering (Chaudhuri, Ganti, Kaushik: ICDE 2006; Bayardo, Ma, Srikant: WWW
2007): with the words of every set in one global order, rarest first, two sets that reach the threshold t share a word
among the first ``n - ceil(t n) + 1`` of each, n its size.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

NEAR = Fraction(4, 5)
"""Jaccard index from which two texts are near-copies."""


def distinct(texts: Sequence[Sequence[str]], threshold: Fraction = NEAR) -> list[int]:
    """Indices of the texts that are kept: in order, each that is no near-copy of one kept before.

    Args:
        texts: the words of each; repeated words and their order do not count. A text without words is kept.
        threshold: least Jaccard index of near-copies, above 0 and at most 1; a fraction, since no rounding may decide.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold = {threshold} must be above 0 and at most 1")
    sets = [frozenset(words) for words in texts]
    counts = Counter(word for words in sets for word in words)
    holders: dict[str, list[int]] = defaultdict(list)  # kept texts by the words of their prefixes
    kept = []
    for i, words in enumerate(sets):
        n = len(words)
        prefix = sorted(words, key=lambda word: (counts[word], word))[: n - ceil(threshold * n) + 1] if n else []
        candidates = {j for word in prefix for j in holders[word]}
        if any(_near(words, sets[j], threshold) for j in candidates):
            continue
        kept.append(i)
        for word in prefix:
            holders[word].append(i)
    return kept


def _near(one: frozenset[str], other: frozenset[str], threshold: Fraction) -> bool:
    part, whole = threshold.numerator, threshold.denominator  # in integers, which are fast and exact
    small, large = sorted((len(one), len(other)))
    if whole * small < part * large:
        return False
    common = len(one & other)
    return whole * common >= part * (small + large - common)
