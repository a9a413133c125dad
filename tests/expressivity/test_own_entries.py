"""Every finding has an entry in the ledger, with the label it has on the page; discrete redundancies are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from cdvft_bench.claims import verify
from cdvft_bench.claims.ledger.read import read_ledger
from cdvft_bench.expressivity import checks as witness
from cdvft_bench.expressivity import redundancy as fibre
from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.findings.algebraic import FINDINGS, read_findings
from cdvft_reference.cdvft import FactorShapes

COMMITTED = Path(__file__).parents[2] / "profiles" / "expressivity-cpu"
ELSEWHERE = {"m2-for-accuracy": "m-2-is-enough"}  # a claim of the paper's, judged by accuracy


def test_every_finding_has_an_entry_and_every_entry_a_finding():
    claims = {claim.id: claim for claim in read_ledger().claims}
    own = {name.removeprefix("expressivity.") for name in claims if name.startswith("expressivity.")}
    found = {re.sub(r"-n\d+$", "", f.id): f.label for f in read_findings(COMMITTED)}  # one entry for all widths
    assert own == set(found) - set(ELSEWHERE)
    for name, label in found.items():
        if name in ELSEWHERE:
            assert ELSEWHERE[name] in claims
        else:
            assert claims[f"expressivity.{name}"].source.section.endswith(f"; {label}")


def test_real_changes_are_judged_by_a_profile(tmp_path):
    ledger = tmp_path / "ledger.toml"
    own = (Path(__file__).parents[2] / "cdvft_bench" / "claims" / "ledgers" / "expressivity.toml").read_text()
    entry = next(part for part in own.split("[[claim]]") if 'id = "expressivity.real-changes"' in part)
    ledger.write_text('[ledger]\ntitle = "one"\nversion = 1\n[[claim]]' + entry.split("# ---")[0])
    (silent,) = verify(ledger).verdicts
    assert (silent.word, silent.as_pinned) == ("not measured", True)
    assert "findings.jsonl" in silent.detail
    (heard,) = verify(ledger, [COMMITTED / FINDINGS]).verdicts
    assert (heard.word, heard.as_pinned) == ("holds", True)


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("field", ["real", "complex"])
def test_classes_are_found_and_no_more(n, field):
    assert fibre.classes_found(n, field, starts=48, seed=3) == fibre.class_count(n, field)


def test_normalised_factors_are_the_same_change():
    product = Product(FactorShapes(5, 5, 2, 5))
    theta = product.random(3, torch.complex128, torch.Generator().manual_seed(1))
    normal = fibre.normalised(product, theta)
    torch.testing.assert_close(product.dense(normal), product.dense(theta))
    torch.testing.assert_close(normal[:, 0], torch.ones(3, dtype=torch.complex128))


def test_a_witness_can_say_no():
    assert witness.error_at("rank 2", 5, 2) > 0.1
    assert witness.gain_of_a_third_diagonal("gaussian") > 0.1
    assert witness.behind_best_peer("low_rank", "parameters 4d") > 0.1
    assert witness.missed_gaussians(2, "real") > 0
