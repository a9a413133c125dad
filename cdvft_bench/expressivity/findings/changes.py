"""What the families reach of the weight changes that real fine-tuning makes."""

from __future__ import annotations

from cdvft_bench.expressivity.budget import FAMILIES, TITLES
from cdvft_bench.expressivity.experiments import Row
from cdvft_bench.expressivity.findings.finding import Finding
from cdvft_bench.expressivity.findings.stats import best_within, mean, rank_error
from cdvft_bench.expressivity.profile import Profile


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
        Finding(
            "real-changes",
            statement,
            "checked numerically",
            evidence if arrays else {"changes": 0},
            "; ".join(dict.fromkeys(row["source"] for row in profile.of("change"))) or "Needs run --weights.",
            means["parameters"][first[0]] > 0.5 if first else None,
        ),
        Finding(
            "m2-for-accuracy",
            "m = 2 is enough for accuracy: what of a weight change m = 2 cannot follow is not needed by the task.",
            "conjectured",
            {},
            "Fine-tuning of pretrained models; a statement about tasks, which distances of matrices cannot settle.",
            None,
        ),
    ]
