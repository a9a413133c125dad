"""Findings: what follows from algebra and from a profile, each with its label and its figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cdvft_bench.core.io.files import write_file
from cdvft_bench.expressivity.experiments import REACHED, Row
from cdvft_bench.expressivity.findings.finding import FINDINGS, Finding
from cdvft_bench.expressivity.findings.measured import measured_findings
from cdvft_bench.expressivity.profile import Profile
from cdvft_bench.expressivity.structure import dimension_bound, generic_full_m, parameter_count
from cdvft_reference.cdvft import FactorShapes


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def dimension_findings(profile: Profile) -> list[Finding]:
    """Dimension of the set against the number of parameters."""
    rows = profile.of("dimension")
    equal = [row["exact"] == row["bound"] for row in rows]
    shapes = FactorShapes(768, 768, 2, 768)
    size = dimension_bound(shapes)
    found = [
        Finding(
            "dimension",
            "On a square layer with p dividing d the weight changes of m diagonals form a set of dimension "
            "min(d^2, P - (2m - 2) d / p), P the number of parameters: until they fill the space, the only continuous "
            "redundancies are scalings, one for each block and each pair of neighbouring factors.",
            "proved",
            {"shapes": len(rows), "share_of_shapes_equal": _share(equal)} if rows else {},
            "Upper bound: any shape. Equality: the shapes of the profile, by exact arithmetic modulo a prime; "
            "for m = 2 any d and p.",
            _all(equal),
        ),
        Finding(
            "m2-dimension",
            "With m = 2 and p = d, 3d parameters span a set of dimension 3d - 2 in a space of d^2: for d >= 3 "
            "almost no matrix is a weight change of the paper's setting.",
            "proved",
            {
                "parameters_at_768": parameter_count(shapes),
                "dimension_at_768": size,
                "share_of_space_at_768": size / 768**2,
            },
            "Any d; 'almost no' in the sense of measure.",
            _all([row["exact"] == min(3 * row["n"] - 2, row["n"] ** 2) for row in rows if _paper(row)]),
        ),
    ]
    classes = profile.of("classes")
    found.append(
        Finding(
            "m2-classes",
            "Beside its two scalings m = 2 with p = d has discrete redundancies alone: over the complex numbers d "
            "classes of factors give the same weight change, over the reals two for even d and one for odd d. From "
            "m = 3 on shifts through each inner diagonal come on top.",
            "proved",
            {f"classes_n{row['n']}_{row['field']}": row["found"] for row in classes},
            "Weight changes without a zero entry; those with one are of measure zero. The count for m = 2 is complete; "
            "for m >= 3 it is a lower bound.",
            _all([row["found"] == row["counted"] for row in classes]),
        )
    )
    full = [row for row in rows if row["block_size"] == row["n"]]
    firsts = {n: min((r["m"] for r in full if r["n"] == n and r["exact"] == n * n), default=0) for n in _widths(full)}
    statement = (
        "Over either field the products first fill all d^2 dimensions at m = ceil(d / 2) + 1, some d + 1 "
        "factors; the theorem's 2d - 1 factors (m = d) are nearly twice that. Over the complex numbers almost "
        "every matrix is then a product; over the reals a set of positive measure is."
    )
    agree = _all([m == generic_full_m(n) for n, m in firsts.items()])
    tested = {"widths": len(firsts), "largest_width": max(firsts, default=0)}
    found.append(Finding("full-dimension", statement, "proved", tested, "p = d; d as in the profile.", agree))
    found.append(
        Finding("full-dimension-any-width", "The same holds for every d >= 2.", "conjectured", tested, "p = d.", agree)
    )
    return found


def _all(hits: list[bool]) -> bool | None:
    return all(hits) if hits else None


def _paper(row: Row) -> bool:
    return bool(row["m"] == 2 and row["block_size"] == row["n"])


def _widths(rows: list[Row]) -> list[int]:
    return sorted({row["n"] for row in rows})


def theorem_findings(profile: Profile) -> list[Finding]:
    """Huhtanen and Peramaki's theorem, and what real vectors cost."""
    built = profile.of("factorisation")
    residuals = [r for row in built for r in row["residuals"]]
    edge = profile.of("boundary")
    growth = edge[-1]["spread"] / edge[0]["spread"] if edge else 0.0
    two = profile.of("real_2x2")
    found = [
        Finding(
            "theorem-is-generic",
            "The factorisation into 2d - 1 factors is a theorem about generic complex matrices, not about every "
            "one: [[0, 1], [1, 1]] is not diagonal x circulant x diagonal, though it is a limit of such products, "
            "whose factors grow without bound.",
            "proved",
            {"growth_of_factors": growth, "gap_first": edge[0]["gap"], "gap_last": edge[-1]["gap"]} if edge else {},
            "Products that begin and end with a diagonal, as CDVFT's do; d = 2. Complex circulants at both ends reach "
            "it.",
            growth > 10 if edge else None,
        ),
        Finding(
            "constructive",
            "Generic complex matrices are factorised into 2d - 1 factors by one polynomial eigenvalue problem a "
            "circulant factor.",
            "checked numerically",
            {"matrices": len(residuals), "worst_residual": max(residuals), "largest_width": max(_widths(built))}
            if built
            else {},
            "Complex Gaussian matrices, float64.",
            max(residuals) < REACHED if built else None,
        ),
        Finding(
            "real-two-by-two",
            "Real factors do not do what complex ones do: the product of the four entries of a real 2 x 2 "
            "diagonal x circulant x diagonal is a square, so matrices whose entries have a negative product are "
            "out of reach, at a distance of their smallest entry.",
            "proved",
            {"share_out_of_reach": two[0]["share_unreached"], "mean_error": two[0]["mean_error"]} if two else {},
            "d = 2, m = 2 (the theorem's number of factors); real Gaussian targets for the share.",
            abs(two[0]["share_unreached"] - 0.5) < 0.1 if two else None,
        ),
    ]
    evidence: dict[str, float] = {}
    hits = []
    for n in _widths(profile.of("reach")):
        m = generic_full_m(n)
        shares = {
            (field, k): _share([e < REACHED for e in profile.of("reach", n=n, field=field, m=k)[0]["errors"]])
            for field in ("real", "complex")
            for k in (m, m + 1)
        }
        evidence |= {f"share_reached_n{n}_m{k}_{field}": share for (field, k), share in shares.items()}
        tight = dimension_bound(FactorShapes(n, n, m, n)) == parameter_count(FactorShapes(n, n, m, n)) - (2 * m - 2)
        hits.append(shares["complex", m] == 1 and shares["real", m + 1] == 1 and (shares["real", m] < 1 or not tight))
    found.append(
        Finding(
            "real-costs",
            "Real Gaussian targets were all reached by complex factors at m = ceil(d / 2) + 1, sooner than the "
            "theorem says. Real factors reached only part of them there where dimensions leave no room (even d), "
            "and all of them with one diagonal and one circulant factor more: real vectors cost at most that.",
            "checked numerically",
            evidence,
            "Small d, p = d; found by search, so a target that was not reached may still be reachable.",
            _all(hits),
        )
    )
    return found


def search_findings(profile: Profile) -> list[Finding]:
    """How often planted products are found."""
    rows = profile.of("recovery")
    evidence: dict[str, float] = {}
    for row in rows:
        name = f"n{row['n']}_m{row['m']}_{row['field']}"
        evidence[f"targets_found_{name}"] = _share([e < REACHED for e in row["errors"]])
        evidence[f"starts_that_find_{name}"] = row["share_of_starts"]
    two = [_share([e < REACHED for e in r["errors"]]) for r in rows if r["m"] == 2]
    harder = [r["share_of_starts"] for r in rows if r["m"] > 2]
    return [
        Finding(
            "search-solves-m2",
            "Products with m = 2 are recovered exactly by the search, real and complex: errors shown for m = 2 "
            "can be trusted.",
            "checked numerically",
            {k: v for k, v in evidence.items() if "_m2_" in k},
            "Planted normal factors, p = d.",
            all(s == 1 for s in two) if two else None,
        ),
        Finding(
            "search-is-hard-beyond-m2",
            "From m = 3 on most starts end away from a solution, although every target is a product by construction: "
            "what more factors can express they need not find. Errors shown for m >= 3 are upper bounds.",
            "checked numerically",
            {k: v for k, v in evidence.items() if "_m2_" not in k},
            "Planted normal factors, p = d, Levenberg-Marquardt with a falling ridge.",
            all(s < 0.5 for s in harder) if harder else None,
        ),
    ]


def _floor(row: Row) -> tuple[list[float], list[float]]:
    return row["errors"], row["even_distances"]


def algebra_findings(profile: Profile) -> list[Finding]:
    """Sets that contain or miss each other."""
    own = [
        row
        for row in profile.of("approximation", ensemble="circulant")
        if row["options"]["m"] >= 2 and row["options"]["block_size"] == row["n"]
    ]
    exact = [e for row in own for e in row["errors"]]
    floors = profile.of("fourier_floor")
    low = profile.of("low_rank")
    ranks = {
        f"share_reached_n{row['n']}_rank{row['rank']}_m{row['m']}": _share([e < REACHED for e in row["errors"]])
        for row in low
    }
    enough = [ranks[f"share_reached_n{r['n']}_rank{r['rank']}_m{r['m']}"] for r in low if r["m"] > r["rank"]]
    fewer = [ranks[f"share_reached_n{r['n']}_rank{r['rank']}_m{r['m']}"] for r in low if r["m"] <= r["rank"]]
    return [
        Finding(
            "contained",
            "m = 2 with p = d contains every circulant matrix and every matrix of rank one; a zero entry of one of "
            "its weight changes makes a whole row, column or wrapped diagonal zero.",
            "proved",
            {"worst_error_on_circulant": max(exact)} if exact else {},
            "Square layers; rank one holds for any widths and p.",
            max(exact) < REACHED if exact else None,
        ),
        Finding(
            "low-rank-at-r-plus-1",
            "Most random matrices of rank r were reached exactly with m = r + 1, and none with fewer: each circulant "
            "factor beyond the first buys one more rank of LoRA.",
            "checked numerically",
            ranks,
            "Real Gaussian factors, p = d, the widths and ranks of the profile; found by search.",
            min(enough) >= 0.5 and max(fewer) == 0 if enough and fewer else None,
        ),
        Finding(
            "low-rank-at-r-plus-1-any-width",
            "For every d and r, almost every matrix of rank r is a product of r + 1 diagonals and r circulants.",
            "conjectured",
            {},
            "p = d, over the reals. For r = 1 it is proved (contained).",
            min(enough) > 0 if enough else None,
        ),
        Finding(
            "fourierft-is-even",
            "FourierFT's real coefficients reach only matrices with T[r, s] = T[-r, -s] (indices modulo the "
            "widths): however many are trained, half of the dimensions stay out of reach.",
            "proved",
            {"share_of_space_at_768": (768**2 + 4) / 2 / 768**2}
            | {f"least_error_gaussian_n{row['n']}": min(row["errors"]) for row in floors},
            "Real coefficients and the real part of the inverse FFT, as the method and PEFT have it.",
            _all([abs(e - d) < REACHED and e > 0.5 for r in floors for e, d in zip(*_floor(r), strict=True)]),
        ),
    ]


def all_findings(profile: Profile) -> list[Finding]:
    """Every finding of a profile, in the order of the page."""
    return [
        *dimension_findings(profile),
        *theorem_findings(profile),
        *algebra_findings(profile),
        *search_findings(profile),
        *measured_findings(profile),
    ]


def write_findings(profile: Profile, folder: Path) -> list[Finding]:
    """Write ``findings.jsonl`` next to the rows: one finding a line."""
    found = all_findings(profile)
    write_file(folder / FINDINGS, "".join(json.dumps(asdict(f), allow_nan=False) + "\n" for f in found))
    return found
