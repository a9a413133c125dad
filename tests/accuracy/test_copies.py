"""Near-copies among texts, against every pair compared."""

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.accuracy.training.tasks import NEAR, distinct, make_task
from cdvft_bench.core.errors import UserError


def _by_every_pair(texts: Sequence[Sequence[str]], threshold: Fraction) -> list[int]:
    kept: list[int] = []
    for i, text in enumerate(texts):
        words = set(text)
        others = [set(texts[j]) for j in kept]
        if not any(words and o and Fraction(len(words & o), len(words | o)) >= threshold for o in others):
            kept.append(i)
    return kept


@given(
    st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=9), max_size=40),
    st.fractions(min_value=Fraction(1, 10), max_value=1, max_denominator=12),
)
def test_as_every_pair_says(texts: list[list[str]], threshold: Fraction) -> None:
    assert distinct(texts, threshold) == _by_every_pair(texts, threshold)


def test_the_threshold_itself_is_near() -> None:
    assert distinct([list("abcde"), list("abcd")]) == [0]  # four of five words
    assert distinct([list("abcdef"), list("abcdxy")]) == [0, 1]
    assert distinct([list("abcd"), list("abc")]) == [0, 1]  # three of four
    assert distinct([[], []]) == [0, 1]
    assert Fraction(4, 5) == NEAR


@pytest.mark.parametrize("threshold", [Fraction(0), Fraction(11, 10)])
def test_a_threshold_out_of_range(threshold: Fraction) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        distinct([["a"]], threshold)


def test_a_task_without_near_copies() -> None:
    """No text of one split is nearly one of another, whatever the order of the rows."""
    rng = random.Random(5)
    words = [f"w{i}" for i in range(400)]
    rows = []
    for i in range(60):
        text = [*rng.sample(words, 8), f"own{i}"]
        rows.append((" ".join(text), "ab"[i % 2]))
        rows.append((" ".join(["rt", *text]) + " http://t.co/x", "ab"[i % 2]))
    plain = make_task("t", rows, "none")
    task = make_task("t", rows, "none", near_copies=False, shares=(0.5, 0.2))
    assert (plain.duplicates, task.duplicates) == (0, 60)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [30, 12, 18]
    rng.shuffle(rows)
    assert make_task("t", rows, "none", near_copies=False, shares=(0.5, 0.2)).test == task.test
    with pytest.raises(UserError, match="19 different examples are too few"):
        make_task("t", [row for row in rows if " own" in row[0]][:0] + rows_of(19), "none", near_copies=False)


def rows_of(n: int) -> list[tuple[str, str]]:
    """Pairs of near-copies of ``n`` texts."""
    texts = [" ".join(f"{letter}{i}" for letter in "abcdefg") for i in range(n)]
    return [(text + end, "xy"[i % 2]) for i, text in enumerate(texts) for end in ("", " again")]
