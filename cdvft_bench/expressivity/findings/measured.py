"""Findings that compare families, and that watch gradients and trainings."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any

from cdvft_bench.core.student import mean_interval
from cdvft_bench.core.ties import steady
from cdvft_bench.expressivity.budget import FAMILIES, TITLES, cost_of
from cdvft_bench.expressivity.experiments import REACHED, Row
from cdvft_bench.expressivity.findings.finding import Finding, finding
from cdvft_bench.expressivity.fitting.targets import ENSEMBLES
from cdvft_bench.expressivity.profile import Profile


def approximations(profile: Profile, ensemble: str, n: int) -> list[Row]:
    """All rows of one ensemble and width."""
    equal: dict[str, Any] = {"ensemble": ensemble, "n": n}
    return profile.of("approximation", **equal) + profile.of("approximation_peers", **equal)


def setting(profile: Profile, ensemble: str, n: int, m: int, block_size: int) -> Row | None:
    """CDVFT's row at one m and p."""
    rows = profile.of("approximation", ensemble=ensemble, n=n, options={"m": m, "block_size": block_size})
    return rows[0] if rows else None


def widths(profile: Profile) -> list[int]:
    """Widths of the approximations."""
    return sorted({row["n"] for row in profile.of("approximation")})


@dataclass(frozen=True)
class Contest:
    """Who comes nearest to an ensemble within a budget.

    Attributes:
        family: the family of least mean error.
        rival: the next one; None when nothing else fits.
        clear: whether the paired difference of the two, draw by draw, excludes zero (95 %).
    """

    family: str
    rival: str | None
    clear: bool


def contest(profile: Profile, ensemble: str, n: int, axis: str, block_size: int) -> Contest | None:
    """The nearest family within the budget of CDVFT's m = 2 at a block size; None when not measured.

    FourierFT at the best positions is left out: it is a bound, not the method.
    """
    own = setting(profile, ensemble, n, 2, block_size)
    if own is None:
        return None
    errors = {}
    for family in FAMILIES:
        if family == "fourierft_best":
            continue
        rows = [row for row in approximations(profile, ensemble, n) if row["family"] == family]
        best = best_within(rows, axis, own[axis])
        if best is not None:
            errors[family] = best["errors"]
    ranked = sorted(errors, key=lambda family: rank_error(errors[family]))
    if len(ranked) == 1:
        return Contest(ranked[0], None, True)
    first, second = ranked[:2]
    difference = mean_interval([b - a for a, b in zip(errors[first], errors[second], strict=True)])
    return Contest(first, second, difference.side(0.0) == "above" and difference.value > REACHED)


def _verdict(profile: Profile) -> list[Finding]:
    evidence: dict[str, float] = {}
    falls = []
    for n in widths(profile):
        for ensemble in ENSEMBLES:
            first, later = setting(profile, ensemble, n, 2, n), setting(profile, ensemble, n, 3, n)
            if first is None or later is None:
                continue
            pair = mean(first["errors"]), mean(later["errors"])
            evidence[f"error_{ensemble}_n{n}_m2"], evidence[f"error_{ensemble}_n{n}_m3"] = pair
            falls.append(ensemble == "circulant" or pair[1] < 0.99 * pair[0])
    return [
        finding("m2-is-enough", evidence, all(falls) if falls else None),
        *change_findings(profile),
    ]


def affordable_rank(d: int) -> int:
    """Largest rank of LoRA within the forward FLOPs of CDVFT m = 2, p = d."""
    budget = cost_of("cdvft", {"m": 2, "block_size": d}, d, d)[1]
    return max(r for r in range(d + 1) if r == 0 or cost_of("lora", {"rank": r}, d, d)[1] <= budget)


def _outcome(contests: dict[str, Contest]) -> str:
    parts = []
    for family in FAMILIES:
        won = [e.replace("_", " ") for e, c in contests.items() if c.clear and c.family == family]
        parts += [f"{TITLES[family]} on {', '.join(won)}"] if won else []
    for e, c in contests.items():
        parts += [] if c.clear else [f"{TITLES[c.family]} and {TITLES[c.rival or c.family]} alike on {e}"]
    return "; ".join(parts)


def _equal_budgets(profile: Profile) -> list[Finding]:
    found = []
    for n in widths(profile):
        for name, axis, p, budget in (
            ("parameters", "parameters", n, "the 3d parameters of CDVFT m = 2, p = d (LoRA can use 2d)"),
            ("parameters-4d", "parameters", n // 2, "4d parameters (CDVFT m = 2, p = d / 2; LoRA of rank 2)"),
            ("flops", "flops_per_token", n, "the FLOPs of CDVFT m = 2, p = d"),
        ):
            results = {e: contest(profile, e, n, axis, p) for e in ENSEMBLES}
            contests = {e: c for e, c in results.items() if c is not None}
            if not contests:
                continue
            evidence = {
                f"ensembles_won_by_{f}": sum(c.clear and c.family == f for c in contests.values()) for f in FAMILIES
            }
            if name == "flops":
                evidence |= {f"lora_rank_within_flops_at_{d}": affordable_rank(d) for d in (n, 768)}
            found.append(
                Finding(
                    f"equal-{name}-n{n}",
                    f"Within {budget} at d = {n}, the least error is reached by {_outcome(contests)}.",
                    "checked numerically",
                    evidence,
                    "Best fit in the Frobenius norm; winners by paired differences over draws. FLOPs: forward, the "
                    "adapter's own, convention flop, 512 tokens. FourierFT at random positions; VeRA's frozen "
                    "matrices are not counted as parameters.",
                    any(c.clear for c in contests.values()) or None,
                )
            )
    return found


def _gradients(profile: Profile) -> list[Finding]:
    slopes = {}
    for source in ("independent", "constant", "gaussian", "low_rank"):
        rows = profile.of("gradient", source=source)
        if len(rows) >= 2:
            means = [mean(row["ratios"]) for row in rows]
            slopes[f"exponent_{source}"] = log_slope([row["block_size"] for row in rows], means)
    measured = [slopes[f"exponent_{s}"] for s in ("gaussian", "low_rank") if f"exponent_{s}" in slopes]
    exact = [
        abs(ratio - row["block_size"] * math.sqrt(coherence)) < 1e-9 * row["block_size"]
        for row in profile.of("gradient")
        for ratio, coherence in zip(row["ratios"], row["coherences"], strict=True)
    ]
    return [
        finding("circulant-gradient", {"gradients_checked": len(exact)}, all(exact) if exact else None),
        finding("bca-proposition", slopes, all(s < 0.75 for s in measured) if measured else None),
    ]


def _starts(profile: Profile) -> list[Finding]:
    ranks = [rank == row["n"] for row in profile.of("conditioning", point="zero_diagonal") for rank in row["ranks"]]
    without_gradient = [
        sum(row["snapshots"][0]["gradient_norms"][:-1]) == 0
        for row in profile.of("training")
        if row["settings"].get("init") == "zero_diagonal"
    ]
    normal = {(r["n"], r["m"]): r for r in profile.of("conditioning", point="normal") if r["block_size"] == r["n"]}
    conditions = {
        f"condition_n{n}_m{m}": math.exp(mean([math.log(c) for c in row["conditions"]]))
        for (n, m), row in sorted(normal.items())
    }
    ordered = [conditions[k] for k in conditions]
    return [
        finding(
            "zero-start",
            {"trainings": len(without_gradient), "points": len(ranks)},
            all(without_gradient) and all(ranks) if without_gradient and ranks else None,
        ),
        finding("conditioning", conditions, ordered == sorted(ordered) if len(ordered) > 1 else None),
    ]


def final_losses(rows: list[Row]) -> dict[float, list[float]]:
    """Last losses by learning rate, one a seed."""
    result: dict[float, list[float]] = {}
    for row in rows:
        last = row["snapshots"][-1]["loss"] if row["snapshots"] else math.inf
        result.setdefault(row["learning_rate"], []).append(last)
    return result


def best_rate(rows: list[Row]) -> float:
    """The learning rate of least last loss, mean over seeds; of equals the first that was tried."""
    losses = final_losses(rows)
    return min(losses, key=lambda rate: steady(mean(losses[rate])))


def losses_at(profile: Profile, ensemble: str, m: int, init: str, step: int) -> list[float]:
    """Losses after some steps at the best learning rate, p = d, one a seed."""
    rows = [
        row
        for row in profile.of("training", ensemble=ensemble)
        if row["settings"] == {"family": "cdvft", "m": m, "block_size": row["n"], "init": init}
    ]
    rows = [row for row in rows if row["learning_rate"] == best_rate(rows)] if rows else []
    return [s["loss"] for row in rows for s in row["snapshots"] if s["step"] == step]


def _first_steps(profile: Profile) -> Finding:
    evidence: dict[str, float] = {}
    lower = []
    for ensemble in dict.fromkeys(row["ensemble"] for row in profile.of("training")):
        for m in (2, 3, 4):
            losses = {
                init: losses_at(profile, ensemble, m, init, 10)
                for init in ("zero_diagonal", "zero_circulant", "random")
            }
            if all(losses.values()):
                means = {init: mean(values) for init, values in losses.items()}
                evidence |= {f"{ensemble}_m{m}_{init}": mean for init, mean in means.items()}
                lower.append(means["zero_diagonal"] <= min(means.values()))
    return finding("first-steps", evidence, all(lower) if lower else None)


def _trainings(profile: Profile) -> list[Finding]:
    ranks: dict[str, list[int]] = {"cdvft": [], "lora": []}
    shares = []
    for row in profile.of("training"):
        family, last = row["settings"]["family"], row["snapshots"][-1] if row["snapshots"] else None
        if family in ranks and last is not None:
            ranks[family].append(last["rank"] - (row["settings"]["rank"] if family == "lora" else 0))
            if family == "cdvft":
                shares.append(last["stable_rank"] / row["n"])
    return [
        finding(
            "rank-in-training",
            {
                "least_rank_of_cdvft": min(ranks["cdvft"]),
                "mean_rank_of_cdvft": mean(ranks["cdvft"]),
                "mean_stable_rank_share_of_cdvft": mean(shares),
            }
            if ranks["cdvft"]
            else {},
            min(ranks["cdvft"]) > 2 and max(ranks["lora"]) <= 0 and mean(shares) < 0.5
            if ranks["cdvft"] and ranks["lora"]
            else None,
        )
    ]


def measured_findings(profile: Profile) -> list[Finding]:
    """Comparisons first, then gradients, starts and trainings."""
    return [
        *_verdict(profile),
        *_equal_budgets(profile),
        *_gradients(profile),
        *_starts(profile),
        _first_steps(profile),
        *_trainings(profile),
    ]


# --- weight changes of real fine-tuning ------------------------------------------------------


def change_arrays(profile: Profile) -> list[list[Row]]:
    """The rows of real weight changes, one list an array of a file."""
    arrays = dict.fromkeys((row["digest"], row["array"]) for row in profile.of("change"))
    return [profile.of("change", digest=digest, array=array) for digest, array in arrays]


def change_budget(rows: list[Row], axis: str) -> float:
    """What m = 2 may spend on one real change: parameters at p = half the smaller width, or FLOPs a token at all of it.

    On square layers the former are 4d, those of LoRA of rank 2.
    """
    small = min(rows[0]["d_in"], rows[0]["d_out"])
    size = max(1, small // 2) if axis == "parameters" else small
    own = next(r for r in rows if r["family"] == "cdvft" and r["options"] == {"m": 2, "block_size": size})
    return float(own[axis])


def change_errors(profile: Profile, axis: str) -> dict[str, list[float]]:
    """Least errors of every family that fits the budget on every real change."""
    errors: dict[str, list[float]] = {}
    arrays = change_arrays(profile)
    for rows in arrays:
        for family in FAMILIES:
            best = best_within([r for r in rows if r["family"] == family], axis, change_budget(rows, axis))
            if best is not None and family != "fourierft_best":
                errors.setdefault(family, []).append(best["errors"][0])
    return {f: e for f, e in errors.items() if len(e) == len(arrays)}


def change_findings(profile: Profile) -> list[Finding]:
    """How near each family comes, and what is only conjectured of accuracy."""
    arrays = change_arrays(profile)
    errors = {axis: change_errors(profile, axis) for axis in ("parameters", "flops_per_token")}
    means = {axis: {f: mean(e) for f, e in found.items()} for axis, found in errors.items()}
    first, flops = (sorted(found, key=lambda f, e=found: rank_error(e[f])) for found in errors.values())  # type: ignore[misc]
    pairs = [
        [r["errors"][0] for m in (2, 3) for r in rows if r["options"] == {"m": m, "block_size": r["d_in"]}]
        for rows in arrays
    ]
    fall = [two - three for two, three in (p for p in pairs if len(p) == 2)]
    statement = "How near m = 2 comes to the changes that fine-tuning makes, against its peers."
    if len(first) > 1 and flops:
        statement = (
            f"On the weight changes of a real fine-tuning no family came near at 4d parameters; {TITLES[first[0]]} "
            f"came nearest, then {TITLES[first[1]]}. Within the FLOPs of m = 2, p = d, {TITLES[flops[0]]} did."
        )
    evidence: dict[str, float] = {"changes": len(arrays)}
    evidence |= {f"mean_error_{f}": means["parameters"][f] for f in first}
    evidence |= {f"mean_error_at_equal_flops_{f}": means["flops_per_token"][f] for f in flops}
    evidence |= {"least_fall_from_m2_to_m3": min(fall), "mean_fall_from_m2_to_m3": mean(fall)} if fall else {}
    return [
        finding(
            "real-changes",
            evidence if arrays else {"changes": 0},
            means["parameters"][first[0]] > 0.5 if first else None,
            statement=statement,
            assumptions="; ".join(dict.fromkeys(row["source"] for row in profile.of("change")))
            or "Needs run --weights.",
        ),
        finding("m2-for-accuracy", {}, None),
    ]


# --- means, and the best row within a budget -------------------------------------------------


def mean(values: Sequence[float]) -> float:
    """Mean of independent draws, of which there is one or more."""
    return mean_interval(values).value


def plus_minus(values: Sequence[float]) -> str:
    """Mean and half-width of independent draws, ``0.123 ± 0.004``; the mean alone where there is no interval."""
    found = mean_interval(values)
    return f"{found.value:.3f}" if found.high is None else f"{found.value:.3f} ± {found.high - found.value:.3f}"


def rank_error(errors: Sequence[float]) -> float:
    """Mean error to rank by: all that is reached is alike, and so is what differs by rounding errors."""
    return max(steady(mean(errors)), REACHED)


def best_within(rows: Iterable[Row], axis: str, budget: float) -> Row | None:
    """The row of least mean error whose ``axis`` ("parameters" or "flops_per_token") is within the budget.

    Of rows alike in error (see :func:`rank_error`) the cheapest.
    """
    fitting = [row for row in rows if row[axis] <= budget * (1 + 1e-12)]
    return min(fitting, key=lambda row: (rank_error(row["errors"]), steady(row[axis])), default=None)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of a power law through positive points: the least-squares slope of their logarithms."""
    return linear_regression([math.log(value) for value in x], [math.log(value) for value in y]).slope
