"""A verification as JSON, and as JUnit XML for continuous integration."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.point import Setting
from cdvft_bench.claims.ledger.text import setting
from cdvft_bench.claims.table import numbers_of, verdict_words
from cdvft_bench.claims.verdict import Reading, Testimony, Verdict, Verification

# What XML 1.0 cannot hold.
_CONTROL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_json(verification: Verification) -> str:
    """Everything that was found, as JSON; a number that is not finite is null."""
    document = {
        "title": verification.title,
        "ledger": verification.path,
        "as_pinned": verification.as_pinned,
        "claims": [_verdict(v) for v in verification.verdicts],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_junit(verification: Verification) -> str:
    """JUnit XML: a claim is a test case; it fails unless its verdict is as pinned, and is skipped when not measured."""
    suite = ET.Element("testsuite", name=_clean(verification.title))
    failures = skipped = 0
    seconds = verification.seconds or (0.0,) * len(verification.verdicts)
    for verdict, taken in zip(verification.verdicts, seconds, strict=True):
        claim = verdict.claim
        stem = Path(verification.path).stem
        case = ET.SubElement(suite, "testcase", classname=_clean(f"claims.{stem}"), name=claim.id, time=f"{taken:.3f}")
        told = _clean(told_of(verdict))
        if not verdict.as_pinned:
            failures += 1
            ET.SubElement(case, "failure", message=_clean(verdict.pinned), type=verdict.word).text = told
        elif verdict.word == "not measured":
            skipped += 1
            ET.SubElement(case, "skipped", message=_clean(verdict.detail))
        ET.SubElement(case, "system-out").text = told
    suite.attrib |= {
        "tests": str(len(verification.verdicts)),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{sum(seconds):.3f}",
    }
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def told_of(verdict: Verdict) -> str:
    """A verdict in several lines: claim, source, verdict, numbers."""
    claim = verdict.claim
    lines = [
        claim.statement,
        f"source: {claim.source.paper}, {claim.source.section}",
        f"verdict: {verdict_words(verdict)}" + (f" ({verdict.detail})" if verdict.detail else ""),
        *([f"not as pinned: {verdict.pinned}"] if verdict.pinned else []),
        *(f"  {'+' if r.holds else '-'} {_at(r.setting)}{numbers_of(r)}" for r in verdict.readings),
    ]
    return "\n".join(lines)


def _at(at: Setting) -> str:
    return f"[{setting(at)}] " if at else ""


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


# --- JSON ----------------------------------------------------------------------------------


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **_claim(verdict.claim),
        "verdict": verdict.word,
        "detail": verdict.detail,
        "needed": {axis: list(values) for axis, values in verdict.needed},
        "settings": {"tried": verdict.tried, "judged": verdict.judged, "hold": verdict.hits, "open": verdict.open},
        "expected_verdict": verdict.claim.verdict,
        "as_pinned": verdict.as_pinned,
        "pinned": verdict.pinned,
        "readings": [_reading(r) for r in verdict.readings],
    }


def _claim(claim: Claim) -> dict[str, Any]:
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": {"paper": claim.source.paper, "section": claim.source.section},
        "quantity": {"name": claim.point.quantity, **dict(claim.point.options)},
        "law": claim.law.kind,
        "tolerance": claim.tolerance,
        "assumption": claim.assumption,
    }


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "setting": {axis: list(v) if isinstance(v, tuple) else v for axis, v in reading.setting},
        "holds": reading.holds if reading.judged else None,
        "witnesses": [_testimony(t) for t in reading.heard],
    }


def _testimony(said: Testimony) -> dict[str, Any]:
    return {
        "witness": said.witness,
        "holds": said.holds,
        "numbers": said.text,
        "miss": _finite(said.miss),
        "ratio": _finite(said.ratio),
        "remedy": said.remedy,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
