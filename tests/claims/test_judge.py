"""The judge's own arithmetic: conditions that say it all, and hits that come by chance."""

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.claims.conditions import chance_of, conditions
from cdvft_bench.claims.judge import judge
from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.laws import Equals, Ratio
from cdvft_bench.claims.ledger.point import Point, Subject
from cdvft_bench.claims.ledger.read import parse_ledger
from cdvft_bench.claims.sources.source import ExactSource, NotAvailable
from cdvft_bench.claims.table import verdict_words
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
class Says(ExactSource):
    """A source that gives 1 at some (tokens, m), 2 at others, and nothing at the rest."""

    ones: frozenset[tuple[int, int]]
    silent: frozenset[tuple[int, int]] = frozenset()

    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        assert subject is not None
        place = (point.tokens, int(str(dict(subject.values)["m"])))  # type: ignore[union-attr]
        if place in self.silent:
            raise NotAvailable("tired", "sleep")
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
    assert verdict.detail == "not available: count (tired; to supply it: sleep)"
    assert verdict.readings[0].results[0].text == "1"


def reading(tokens: int, m: int, holds: bool, value: float | None = None) -> Reading:
    return Reading((("tokens", tokens), ("subject.m", m)), (Said("count", "", holds, value=value),))


def test_conditions_that_are_not_enough(claim: Claim) -> None:
    hits = {(1, 2), (2, 3)}
    judged = [reading(t, m, (t, m) in hits) for t, m in sorted(ALL)]
    found = conditions(claim, [r for r in judged if r.holds], judged)
    assert found.needed == (("tokens", (1, 2)),)
    assert not found.exact
    assert found.size == 1


@given(st.sets(st.sampled_from(sorted(ALL)), min_size=1, max_size=5))
def test_a_region_in_which_it_holds_holds_everywhere_in_it(hits: set[tuple[int, int]]) -> None:
    claim = parse_ledger(TEXT, "t.toml", Path()).claims[0]
    judged = [reading(t, m, (t, m) in hits) for t, m in sorted(ALL)]
    found = conditions(claim, [r for r in judged if r.holds], judged)
    wherever = dict(found.wherever)
    inside = {
        (t, m) for t, m in ALL if t in wherever.get("tokens", (1, 2, 3)) and m in wherever.get("subject.m", (2, 3))
    }
    assert inside <= hits
    assert len(inside) == found.size >= 1
    assert found.exact == (len(hits) == len({t for t, _ in hits}) * len({m for _, m in hits}))


def of_figures(claim: Claim, law: Ratio | Equals, values: list[float], tolerance: float = 0.0) -> float | None:
    judged = [reading(i, 2, False, value) for i, value in enumerate(values)]
    found = chance_of(replace(claim, law=law, tolerance=tolerance), judged)
    return None if found is None else found.share


def test_chance_is_the_share_of_other_figures_that_would_be_hit(claim: Claim) -> None:
    """Counted one by one: every figure of two decimals from half to twice the claimed one, held against all ratios."""
    generator = np.random.default_rng(7)
    for expected in generator.uniform(5, 200, 4).round(2):
        law = Ratio(expected=(float(expected),), digits=2)
        ratios = [float(r) for r in np.exp(generator.uniform(np.log(2), np.log(500), 800))]
        figures = [k / 100 for k in range(math.ceil(expected * 50), math.floor(expected * 200) + 1)]
        hit = sum(any(abs(r - f) <= 0.005 for r in ratios) for f in figures)
        assert of_figures(claim, law, ratios) == pytest.approx(hit / len(figures), abs=1e-3)


def test_either_of_two_figures_is_hit_more_often(claim: Claim) -> None:
    ratios = [float(r) for r in np.random.default_rng(1).uniform(20, 110, 900)]
    one = of_figures(claim, Ratio(expected=(51.81,), digits=2), ratios)
    two = of_figures(claim, Ratio(expected=(51.81, 51.89), digits=2), ratios)
    assert one is not None
    assert two == pytest.approx(1 - (1 - one) ** 2, abs=0.01)


def test_chance_within_a_tolerance_is_the_share_of_the_range(claim: Claim) -> None:
    generator = np.random.default_rng(2)
    values = [float(v) for v in np.exp(generator.uniform(np.log(1), np.log(100), 12))]
    draws = np.exp(generator.uniform(np.log(5), np.log(20), 20_000))
    hit = np.mean([any(abs(v / d - 1) <= 0.05 for v in values) for d in draws])
    for law in (Ratio(expected=(10.0,)), Equals(expected=(10.0,))):
        assert of_figures(claim, law, values, 0.05) == pytest.approx(hit, abs=0.015)


def test_what_no_other_figure_could_be_has_no_chance(claim: Claim) -> None:
    assert of_figures(claim, Equals(expected=(10.0,)), [1.0, 10.0]) is None
    assert of_figures(claim, Equals(expected=(1.0, 2.0, 0.0)), [1.0, 10.0], 0.1) is None
    assert of_figures(claim, Ratio(low=0.5, high=2.0), [1.0, 10.0]) is None


FREE = TEXT.replace('law = { kind = "equals", expected = 1 }', 'law = { kind = "ratio", expected = 30, digits = 0 }')
FREE = FREE.replace('layer = "64x64"', 'layer = "64x64"\nagainst = { method = "lora" }').replace("[1, 2, 3]", "[*]")


@dataclass(frozen=True)
class Many(ExactSource):
    """A source whose figure is the number of tokens."""

    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        return (float(point.tokens),) if subject == point.subject else (1.0,)


def test_a_figure_that_chance_explains_is_not_identifiable() -> None:
    """117 of the 118 integers from 3 to 120 are among the settings, so that 30 is proves nothing."""
    numbers = sorted(set(range(3, 121)) - {77})
    claim = parse_ledger(FREE.replace("[*]", str(numbers)), "t.toml", Path()).claims[0]
    verdict = judge(claim, {"formula": Many(), "count": Many()})
    assert verdict.word == "not identifiable"
    assert verdict.chance == 1.0
    assert "from 15 to 60 that nobody claimed is hit with a chance of 100 %" in verdict.detail
    assert verdict_words(verdict) == "not identifiable (a figure that nobody claimed is hit with a chance of 100 %)"
    few = parse_ledger(FREE.replace("[*]", "[3, 30, 300]"), "t.toml", Path()).claims[0]
    verdict = judge(few, {"formula": Many(), "count": Many()})
    assert verdict.word == "holds only if"
    assert verdict.chance == pytest.approx(1 / 46)
    assert "with a chance of 2 %" in verdict.detail


def test_a_statement_on_all_widths_is_a_conjecture_checked_on_some(claim: Claim) -> None:
    everywhere = replace(claim, for_all="every number of tokens")
    verdict = judge(everywhere, {"formula": Says(ALL), "count": Says(ALL)})
    assert verdict_words(verdict) == "holds on the 6 tried: a conjecture for every number of tokens, checked on 6"


def test_the_law_is_the_claim_s(claim: Claim) -> None:
    other = replace(claim, law=Equals(expected=(2.0,)))
    verdict = judge(other, {"formula": Says(frozenset()), "count": Says(frozenset())})
    assert verdict.word == "holds"
