"""HTML of templates: one file that asks nothing of the network, in which no text of a record is markup or runs.

Everything that is printed is escaped, data stand in JSON without tags or in base 64, and a content security policy
lets no script run but the page's own, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from cdvft_bench.core.text import plural

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("base.js", "scatter.js", "panels.js", "accuracy.js", "table.js", "explore.js", "page.js")
STYLES = ("base.css", "parts.css")


def render(template: str, page: object, data: Mapping[str, str], blocks: Mapping[str, str]) -> str:
    """A self-contained page.

    Args:
        template: its name. page: what it prints.
        data: JSON by the id of its script element, see ``payload.embedded``.
        blocks: compressed JSON by the id of its element, see ``payload.packed``.
    """
    from markupsafe import Markup

    script = '"use strict";\n(() => {\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        _environment()
        .get_template(template)
        .render(
            page=page,
            script=Markup(script),
            style=Markup("\n".join(asset(name) for name in STYLES)),
            policy=policy,
            plural=plural,
            data={name: Markup(text) for name, text in data.items()},
            blocks=blocks,
        )
        + "\n"
    )


@cache
def asset(name: str) -> str:
    """A script or a style sheet of the page."""
    return (resources.files("cdvft_bench.report.page") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("cdvft_bench.report.page", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
