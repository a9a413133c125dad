"""Findings: what follows from algebra and from a profile, each with its label and its figures."""

import json
from dataclasses import asdict
from pathlib import Path

from cdvft_bench.core.io.files import write_file
from cdvft_bench.expressivity.experiments import REACHED, Row
from cdvft_bench.expressivity.findings.finding import FINDINGS, Finding, finding
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
        finding(
            "dimension", {"shapes": len(rows), "share_of_shapes_equal": _share(equal)} if rows else {}, _all(equal)
        ),
        finding(
            "m2-dimension",
            {
                "parameters_at_768": parameter_count(shapes),
                "dimension_at_768": size,
                "share_of_space_at_768": size / 768**2,
            },
            _all([row["exact"] == min(3 * row["n"] - 2, row["n"] ** 2) for row in rows if _paper(row)]),
        ),
    ]
    classes = profile.of("classes")
    found.append(
        finding(
            "m2-classes",
            {f"classes_n{row['n']}_{row['field']}": row["found"] for row in classes},
            _all([row["found"] == row["counted"] for row in classes]),
        )
    )
    full = [row for row in rows if row["block_size"] == row["n"]]
    firsts = {n: min((r["m"] for r in full if r["n"] == n and r["exact"] == n * n), default=0) for n in _widths(full)}
    agree = _all([m == generic_full_m(n) for n, m in firsts.items()])
    tested = {"widths": len(firsts), "largest_width": max(firsts, default=0)}
    found.append(finding("full-dimension", tested, agree))
    found.append(finding("full-dimension-any-width", tested, agree))
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
        finding(
            "theorem-is-generic",
            {"growth_of_factors": growth, "gap_first": edge[0]["gap"], "gap_last": edge[-1]["gap"]} if edge else {},
            growth > 10 if edge else None,
        ),
        finding(
            "constructive",
            {"matrices": len(residuals), "worst_residual": max(residuals), "largest_width": max(_widths(built))}
            if built
            else {},
            max(residuals) < REACHED if built else None,
        ),
        finding(
            "real-two-by-two",
            {"share_out_of_reach": two[0]["share_unreached"], "mean_error": two[0]["mean_error"]} if two else {},
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
    found.append(finding("real-costs", evidence, _all(hits)))
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
        finding(
            "search-solves-m2",
            {k: v for k, v in evidence.items() if "_m2_" in k},
            all(s == 1 for s in two) if two else None,
        ),
        finding(
            "search-is-hard-beyond-m2",
            {k: v for k, v in evidence.items() if "_m2_" not in k},
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
        finding(
            "contained",
            {"worst_error_on_circulant": max(exact)} if exact else {},
            max(exact) < REACHED if exact else None,
        ),
        finding("low-rank-at-r-plus-1", ranks, min(enough) >= 0.5 and max(fewer) == 0 if enough and fewer else None),
        finding("low-rank-at-r-plus-1-any-width", {}, min(enough) > 0 if enough else None),
        finding(
            "fourierft-is-even",
            {"share_of_space_at_768": (768**2 + 4) / 2 / 768**2}
            | {f"least_error_gaussian_n{row['n']}": min(row["errors"]) for row in floors},
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
