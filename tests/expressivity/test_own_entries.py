"""Every finding has an entry in the ledger, with the label it has on the page; discrete redundancies are counted."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from cdvft_bench.claims import verify
from cdvft_bench.claims.ledger.read import read_ledger
from cdvft_bench.expressivity import checks, recorded, structure
from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.findings.finding import FINDINGS, read_findings
from cdvft_bench.expressivity.profile import Profile, load
from cdvft_bench.expressivity.structure import exact_dimension
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
            assert claims[f"expressivity.{name}"].origin.section.endswith(f"; {label}")


def test_real_changes_are_judged_by_a_profile(tmp_path):
    ledger = tmp_path / "ledger.toml"
    own = (Path(__file__).parents[2] / "cdvft_bench" / "claims" / "ledgers" / "expressivity.toml").read_text()
    entry = next(part for part in own.split("[[claim]]") if 'id = "expressivity.real-changes"' in part)
    ledger.write_text('[ledger]\ntitle = "one"\nversion = 1\n[[claim]]' + entry.split("# ---")[0])
    (missing,) = verify(ledger).verdicts
    assert (missing.word, missing.as_pinned) == ("not measured", True)
    assert "findings.jsonl" in missing.detail
    (read,) = verify(ledger, [COMMITTED / FINDINGS]).verdicts
    assert (read.word, read.as_pinned) == ("holds", True)


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("field", ["real", "complex"])
def test_classes_are_found_and_no_more(n, field):
    assert structure.classes_found(n, field, starts=48, seed=3) == structure.class_count(n, field)


def test_normalised_factors_are_the_same_change():
    product = Product(FactorShapes(5, 5, 2, 5))
    theta = product.random(3, torch.complex128, torch.Generator().manual_seed(1))
    normal = structure.normalised(product, theta)
    torch.testing.assert_close(product.dense(normal), product.dense(theta))
    torch.testing.assert_close(normal[:, 0], torch.ones(3, dtype=torch.complex128))


def test_a_check_can_say_no():
    assert checks.error_at("rank 2", 5, 2) > 0.1
    assert checks.gain_of_a_third_diagonal("gaussian") > 0.1
    assert checks.behind_best_peer("low_rank", "parameters 4d") > 0.1
    assert checks.missed_gaussians(2, "real") > 0


OWN = ("mean_error_on_changes",)
"""Of records alone: the quantity "fit_error"."""
READ = [
    f for n, f in inspect.getmembers(recorded, inspect.isfunction) if f.__module__ == recorded.__name__ and n[0] != "_"
]


@pytest.mark.parametrize("function", READ, ids=lambda f: f.__name__)
def test_what_is_read_has_a_namesake_that_measures(function):
    """The same arguments but for the profile and the number of draws, so that --refit asks the same."""
    if function.__name__ in OWN:
        return
    read = set(inspect.signature(function).parameters) - {"profile"}
    measured = set(inspect.signature(getattr(checks, function.__name__)).parameters)
    assert read <= measured
    assert measured - read <= {"draws", "n"}


def test_what_a_profile_lacks_is_not_available():
    empty = Profile({}, {})
    for function in READ:
        arguments = {
            name: {"n": 6, "m": 2, "target": "gaussian", "field": "real", "budget": "parameters"}.get(name, "random")
            for name, parameter in inspect.signature(function).parameters.items()
            if name != "profile" and parameter.default is inspect.Parameter.empty
        }
        if function.__name__ != "counted_classes":
            assert function(empty, **arguments) is None, function.__name__


def test_what_was_recorded_is_near_what_is_measured_anew():
    """Other draws of the same ensembles: means of errors that do not vary by much."""
    profile = load(COMMITTED)
    pairs = [
        (recorded.gain_of_a_third_diagonal(profile, "gaussian"), checks.gain_of_a_third_diagonal("gaussian", n=16)),
        (recorded.error_at(profile, "circulant", 16, 2), checks.error_at("circulant", 16, 2)),
        (recorded.starts_that_find(profile, 8, 2, "real"), 0.8),
        (recorded.planted_error(profile, 8, 2, "real"), checks.planted_error(8, 2, "real")),
        (recorded.missed_gaussians(profile, 2, "real"), checks.missed_gaussians(2, "real", draws=40)),
    ]
    for read, measured in pairs:
        assert read == pytest.approx(measured, rel=0.5, abs=1e-6)


def test_ranks_of_the_layer_are_the_exact_ones():
    """By FFTs, autograd and singular values on one side, by integers modulo a prime on the other."""
    for shapes in (
        FactorShapes(6, 6, 3, 3),
        FactorShapes(5, 5, 2, 5),
        FactorShapes(4, 6, 3, 2),
        FactorShapes(9, 9, 5, 9),
    ):
        assert checks.rank_of_layer(shapes) == exact_dimension(shapes)
