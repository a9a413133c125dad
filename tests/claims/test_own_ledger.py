"""The suite's own ledger: all of it judged once a test run."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch

from cdvft_bench.analytic.models import MODELS, model_shape
from cdvft_bench.claims.judge import verify_ledger
from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.read import read_ledger
from cdvft_bench.claims.ledger.terms import UNSETTLED
from cdvft_bench.claims.table import THIS_SUITE, rows, short_table, summary, to_junit, verdict_table
from cdvft_bench.claims.verdict import Verification, to_json
from cdvft_bench.execution import native
from tests.texts import same_text

ROOT = Path(__file__).parents[2]


def test_every_verdict_is_as_pinned(verification: Verification) -> None:
    assert verification.as_pinned, [(v.claim.id, v.pinned) for v in verification.verdicts if v.pinned]


def test_51_81_has_one_ratio_behind_it_and_51_89_none(verification: Verification) -> None:
    verdict = verification.of("flops-against-fourierft")
    assert verdict.tried == verdict.judged > 6000
    assert verdict.hits == 6
    assert "51.89 never" in verdict.detail
    assert "1 different ratio" in verdict.detail
    assert verdict.chance == pytest.approx(0.33, abs=0.01)
    d, tokens, log = 768, 256, 9.584962500721156
    lead = (d**2 * 2 * log + 2 * tokens * d**2) / (tokens * (3 * d * log + 2 * d))
    assert verdict.readings[0].results[0].value == pytest.approx(lead, rel=1e-12)
    assert round(lead, 2) == 51.81
    # What is identified: the 2-D FFT's price over that of a multiply-add and over the tokens, in d^2 log2 d.
    hits = [dict(r.setting) for r in verdict.readings if r.holds]
    assert {h["tokens"] for h in hits} == {128, 256, 512}
    planes = {"n log2 n": 2.0, "n log2 d": 1.0}
    quotients = {
        planes[str(h["quantity.plane"])] * float(h["quantity.fft"]) / float(h["quantity.mac"]) / float(h["tokens"])  # type: ignore[arg-type]
        for h in hits
    }
    assert quotients == {1 / 256}


def test_bca_s_32_is_explained_by_chance(verification: Verification) -> None:
    verdict = verification.of("bca-flops-against-fourierft")
    assert (verdict.word, verdict.tried, verdict.chance) == ("not identifiable", 4320, 1.0)


def test_flops_like_lora_is_tried_on_every_layer_of_every_model(verification: Verification) -> None:
    claim = next(c for c in read_ledger().claims if c.id == "flops-like-lora")
    shapes = {
        f"{linear.shape.d_in}x{linear.shape.d_out}"
        for name in MODELS
        for linear in model_shape(name).linears
        if linear.rows == "tokens" and linear.name != "lm_head"
    }
    assert set(dict(claim.open)["layer"]) == shapes
    verdict = verification.of("flops-like-lora")
    assert verdict.judged == verdict.tried == 36 * len(shapes)
    at = {dict(r.setting)["layer"]: r for r in verdict.readings if r.asked}
    assert at["4096x4096"].results[0].value == pytest.approx(1.97, abs=0.005)
    assert at["4096x14336"].results[0].value == pytest.approx(2.25, abs=0.005)
    assert (at["4096x4096"].holds, at["4096x14336"].holds) == (True, False)


def test_every_path_is_on_one_side_of_what_is_claimed_of_the_method(verification: Verification) -> None:
    paths = {"fft", "handwritten", "fused", "stored", "merged", "merged_dense", "native"}
    for name in ("values", "values-float32", "backward-formulas", "gradients-float32", "row-is-reversed-column"):
        claim = next(c for c in read_ledger().claims if c.id == name)
        assert set(dict(claim.open)["quantity.path"]) == paths
        assert verification.of(name).word == "holds"


def test_both_sources_say_the_same(verification: Verification) -> None:
    compared = 0
    for verdict in verification.verdicts:
        for reading in verdict.readings:
            values = [t.value for t in reading.results if t.value is not None]
            if len(values) == 2 and verdict.claim.law != "exponent":
                assert values[0] == pytest.approx(values[1], rel=1e-9), (verdict.claim.id, reading.setting)
                compared += 1
    assert compared > 50


def test_the_backward_of_autograd_is_complex(verification: Verification) -> None:
    verdict = verification.of("transforms-backward")
    assert dict(verdict.needed) == {"subject.path": ("handwritten", "stored")}
    other = next(r for r in verdict.readings if dict(r.setting)["subject.path"] == "fft")
    assert {t.text.split(") ")[0] for t in other.results} == {"(1, 0, 2"}


def test_what_was_recorded_is_judged_without_being_asked(verification: Verification) -> None:
    """From the committed profiles: each verdict names the workload or machine, and what it rests on."""
    for name, said in (("m-2-is-enough", "paired seeds"), ("step-time-like-lora", "machine =")):
        verdict = verification.of(name)
        assert verdict.judged + verdict.open >= 1
        assert {axis for r in verdict.readings for axis, _ in r.setting} & {"workload", "machine"}
        row = next(r for r in rows(verification) if r.id == name)
        assert said in row.numbers
    assert "accuracy-clothes-vit/results.jsonl" in verification.records


def test_what_nobody_recorded_is_not_measured_and_says_what_would_supply_it() -> None:
    (verdict,) = verify_ledger(replace(read_ledger(), claims=(claim_of("m-2-is-enough"),))).verdicts
    assert verdict.word == "not measured"
    assert "--records" in verdict.detail
    assert verdict.as_pinned


def claim_of(name: str) -> Claim:
    return next(c for c in read_ledger().claims if c.id == name)


def test_tables(verification: Verification) -> None:
    table = verdict_table(verification).splitlines()
    assert len(table) == len(verification.verdicts) + 2
    assert {line.replace("\\|", "").count("|") for line in table} == {4}
    for row in rows(verification):
        assert row.numbers or row.verdict == "not measured"
    assert "all as pinned" in summary(verification)


def test_junit(verification: Verification) -> None:
    suite = ET.fromstring(to_junit(verification)).find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == len(verification.verdicts)
    assert suite.attrib["failures"] == "0"
    missing = [v.claim.id for v in verification.verdicts if v.word in UNSETTLED]
    assert [c.attrib["name"] for c in suite.findall("testcase") if c.find("skipped") is not None] == missing


def test_json(verification: Verification) -> None:
    document = json.loads(to_json(verification))
    assert document["as_pinned"] is True
    assert [v["claim"]["id"] for v in document["verdicts"]] == [v.claim.id for v in verification.verdicts]
    first = document["verdicts"][0]
    assert first["readings"][0]["results"][0]["value"] == pytest.approx(16 / 3)


def test_the_documents_show_these_verdicts(verification: Verification) -> None:
    """Made by ``cdvft-bench verify --markdown table > docs/verdicts.md``, with ``short`` for the README."""
    if native.missing(torch.float32):
        pytest.skip("the documents count settings of the compiled kernel, which cannot be compiled here")
    shown, now = (ROOT / "docs" / "verdicts.md").read_text().splitlines(), verdict_table(verification).splitlines()
    same_text("\n".join(map(_settled, shown)), "\n".join(map(_settled, now)))
    assert short_table(verification) in (ROOT / "README.md").read_text()


def _settled(line: str) -> str:
    """A row without what a search's last digits or this process's memory decide."""
    if f"({THIS_SUITE}," not in line and "the process never grows" not in line:
        return line
    statement, verdict = line.split(" | ")[:2]
    return f"{statement} | {verdict.split('**: ')[0]}"
