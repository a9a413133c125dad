"""What a recorded profile holds of the functions of ``checks``: the same names and arguments, nothing fitted anew.

Each takes the profile first and returns what its namesake returns, or None where the profile does not hold it.
"""

from statistics import fmean

from cdvft_bench.expressivity.experiments import REACHED, Row
from cdvft_bench.expressivity.findings.measured import approximations, best_within, change_findings, losses_at, setting
from cdvft_bench.expressivity.profile import Profile
from cdvft_bench.expressivity.structure import generic_full_m


def _one(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None


def _approximation(profile: Profile, target: str, n: int, m: int) -> Row | None:
    """CDVFT's row, p = n, for an ensemble or for matrices of "rank r"."""
    if target.startswith("rank "):
        return _one(profile.of("low_rank", n=n, rank=int(target.removeprefix("rank ")), m=m))
    return setting(profile, target, n, m, n)


def error_at(profile: Profile, target: str, n: int, m: int) -> float | None:
    """Median over draws of CDVFT's least error."""
    row = _approximation(profile, target, n, m)
    return None if row is None else sorted(row["errors"])[len(row["errors"]) // 2]


def gain_of_a_third_diagonal(profile: Profile, target: str, n: int = 16) -> float | None:
    """Mean error with m = 2 less that with m = 3."""
    two, three = (_approximation(profile, target, n, m) for m in (2, 3))
    return None if two is None or three is None else fmean(two["errors"]) - fmean(three["errors"])


def missed_gaussians(profile: Profile, n: int, field: str, more: int = 0) -> float | None:
    """Share of real Gaussian targets that were not reached at m = ceil(n / 2) + 1 + more."""
    row = _one(profile.of("reach", n=n, m=generic_full_m(n) + more, field=field))
    return None if row is None else fmean([float(e > REACHED) for e in row["errors"]])


def planted_error(profile: Profile, n: int, m: int, field: str) -> float | None:
    """Worst error on planted products."""
    row = _one(profile.of("recovery", n=n, k=m, m=m, field=field))
    return None if row is None else max(row["errors"])


def starts_that_find(profile: Profile, n: int, m: int, field: str) -> float | None:
    """Share of starts that found a planted product."""
    row = _one(profile.of("recovery", n=n, k=m, m=m, field=field))
    return None if row is None else row["share_of_starts"]


def m2_classes(profile: Profile, n: int, field: str = "real") -> float | None:
    """Classes of factors that were found."""
    row = _one(profile.of("classes", n=n, field=field))
    return None if row is None else float(row["found"])


def counted_classes(profile: Profile, n: int, field: str = "real") -> float:
    """``n`` over the complex numbers; over the reals 2 for even n, 1 for odd n."""
    return float(n if field == "complex" else 2 - n % 2)


def behind_best_peer(profile: Profile, target: str, budget: str, n: int = 16) -> float | None:
    """CDVFT's mean error less that of the nearest peer within one budget; budgets as in ``checks``."""
    axis = budget.removesuffix(" 4d")
    p = n // 2 if budget.endswith(" 4d") else n
    limit = setting(profile, target, n, 2, p)
    if limit is None:
        return None
    rows = approximations(profile, target, n)
    peers = [row for row in rows if row["family"] not in ("cdvft", "fourierft_best")]
    own = best_within([row for row in rows if row["family"] == "cdvft" and row["options"]["m"] == 2], axis, limit[axis])
    best = best_within(peers, axis, limit[axis])
    return None if own is None or best is None else fmean(own["errors"]) - fmean(best["errors"])


def excess_over_zero_diagonal(profile: Profile, init: str, teacher: str, steps: int = 10) -> float | None:
    """Loss after the first steps from the zero-diagonal start over that from another start, m = 2, p = d."""
    own, other = (losses_at(profile, teacher, 2, start, steps) for start in ("zero_diagonal", init))
    return fmean(own) / fmean(other) if own and other else None


def stable_rank_share(profile: Profile, m: int, teacher: str) -> float | None:
    """Stable rank of trained weight changes over the width, their mean; 1 where a numerical rank is 2 or less."""
    rows = [r for r in profile.of("training", ensemble=teacher) if r["settings"]["family"] == "cdvft"]
    last = [(row["n"], row["snapshots"][-1]) for row in rows if row["settings"]["m"] == m and row["snapshots"]]
    return fmean([s["stable_rank"] / n if s["rank"] > 2 else 1.0 for n, s in last]) if last else None


def mean_error_on_changes(profile: Profile, method: str) -> float | None:
    """Mean least error of a method on the weight changes of real fine-tuning, at 4 d parameters a layer."""
    for finding in change_findings(profile):
        if f"mean_error_{method}" in finding.evidence:
            return float(finding.evidence[f"mean_error_{method}"])
    return None
