"""The judge's own arithmetic: conditions that say it all, and hits that come by chance."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cdvft_bench.claims.judge import by_chance, conditions, judge
from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.laws import Equals, Ratio
from cdvft_bench.claims.ledger.point import Point, Subject
from cdvft_bench.claims.ledger.read import parse_ledger
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.claims.verdict import Reading
from cdvft_bench.claims.verdict import SourceResult as Said

TEXT = """
[ledger]
title = "t"
version = 1
[[claim]]
id = "x"
statement = "s"
source = { paper = "p", section = "s" }
quantity = "parameters"
subject = { method = "cdvft" }
layer = "64x64"
law = { kind = "equals", expected = 1 }
witnesses = ["formula", "count"]
verdict = "holds only if"
assumption = "a"
[claim.open]
tokens = [1, 2, 3]
"subject.m" = [2, 3]
"""


@pytest.fixture
def claim() -> Claim:
    return parse_ledger(TEXT, "t.toml", Path()).claims[0]


@dataclass(frozen=True)
class Says:
    """A witness who says 1 at some (tokens, m), 2 at others, and nothing at the rest."""

    ones: frozenset[tuple[int, int]]
    silent: frozenset[tuple[int, int]] = frozenset()

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        assert subject is not None
        place = (point.tokens, int(str(dict(subject.values)["m"])))  # type: ignore[union-attr]
        if place in self.silent:
            raise Silent("tired", "sleep")
        return (1.0 if place in self.ones else 2.0,)


ALL = frozenset(itertools.product((1, 2, 3), (2, 3)))


def test_holds_where_all_do(claim: Claim) -> None:
    verdict = judge(claim, {"formula": Says(ALL), "count": Says(ALL)})
    assert (verdict.word, verdict.tried, verdict.hits) == ("holds", 6, 6)
    assert verdict.pinned == "the ledger expects 'holds only if', the verdict is 'holds'"


def test_holds_only_if_names_the_axis(claim: Claim) -> None:
    ones = frozenset(p for p in ALL if p[1] == 3)
    verdict = judge(claim, {"formula": Says(ones), "count": Says(ones)})
    assert (verdict.word, verdict.hits) == ("holds only if", 3)
    assert verdict.needed == (("subject.m", (3,)),)
    assert verdict.detail == "subject.m = 3; 3 of 6 settings tried; the others are off by 100 %"


def test_one_witness_does_not_outvote_another(claim: Claim) -> None:
    verdict = judge(claim, {"formula": Says(ALL), "count": Says(frozenset())})
    assert verdict.word == "fails"
    assert "formula for it, count against" in verdict.detail


def test_silence_on_some_settings_is_said(claim: Claim) -> None:
    verdict = judge(claim, {"formula": Says(ALL), "count": Says(ALL, silent=frozenset({(1, 2), (2, 2)}))})
    assert (verdict.word, verdict.tried, verdict.judged) == ("holds", 6, 4)
    assert verdict.detail == "in all 4 settings tried; 2 settings not judged"


def test_silence_on_all_is_not_measured(claim: Claim) -> None:
    verdict = judge(claim, {"formula": Says(ALL), "count": Says(ALL, silent=ALL)})
    assert verdict.word == "not measured"
    assert verdict.detail == "missing: count (tired; to supply it: sleep)"
    assert verdict.readings[0].results[0].text == "1"


def reading(tokens: int, m: int, holds: bool) -> Reading:
    return Reading((("tokens", tokens), ("subject.m", m)), (Said("count", "", holds),))


def test_conditions_that_are_not_enough(claim: Claim) -> None:
    hits = {(1, 2), (2, 3)}
    judged = [reading(t, m, (t, m) in hits) for t, m in sorted(ALL)]
    needed, exact = conditions(claim, [r for r in judged if r.holds], judged)
    assert needed == (("tokens", (1, 2)),)
    assert not exact


def test_hits_by_chance_are_as_many_as_chance_makes() -> None:
    law = replace(Ratio(expected=(51.81, 51.89), digits=2))
    generator = np.random.default_rng(7)
    found, expected = [], []
    for _ in range(200):
        ratios = [float(r) for r in np.exp(generator.uniform(np.log(5), np.log(500), 3000))]
        found.append(sum(round(r, 2) in law.expected for r in ratios))
        expected.append(by_chance(law, ratios))
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.25)


def test_the_law_is_the_claim_s(claim: Claim) -> None:
    other = replace(claim, law=Equals(expected=(2.0,)))
    verdict = judge(other, {"formula": Says(frozenset()), "count": Says(frozenset())})
    assert verdict.word == "holds"
