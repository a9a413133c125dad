"""A verification as JUnit XML, for continuous integration."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from cdvft_bench.claims.ledger.terms import Setting
from cdvft_bench.claims.ledger.text import setting
from cdvft_bench.claims.table import numbers_of, verdict_words
from cdvft_bench.claims.verdict import Verdict, Verification

# What XML 1.0 cannot hold.
_CONTROL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(verification: Verification) -> str:
    """JUnit XML: a claim is a test case; it fails unless its verdict is as pinned, and is skipped when not measured."""
    suite = ET.Element("testsuite", name=_clean(verification.title))
    failures = skipped = 0
    for verdict in verification.verdicts:
        claim = verdict.claim
        stem = Path(verification.ledger).stem
        case = ET.SubElement(
            suite, "testcase", classname=_clean(f"claims.{stem}"), name=claim.id, time=f"{verdict.seconds:.3f}"
        )
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
        "time": f"{sum(v.seconds for v in verification.verdicts):.3f}",
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
        f"source: {claim.origin.paper}, {claim.origin.section}",
        f"verdict: {verdict_words(verdict)}" + (f" ({verdict.detail})" if verdict.detail else ""),
        *([f"not as pinned: {verdict.pinned}"] if verdict.pinned else []),
        *(f"  {'+' if r.holds else '-'} {_at(r.setting)}{numbers_of(r)}" for r in verdict.readings),
    ]
    return "\n".join(lines)


def _at(at: Setting) -> str:
    return f"[{setting(at)}] " if at else ""


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
