"""Pages made of templates: one HTML file that asks nothing of the network, and the same as Markdown.

The HTML escapes what it prints; data stand in blocks of base 64 that no text can leave; a content
security policy lets no script run but the page's own and plotly's, both by their hashes. plotly.js
is carried packed (1.5 MB instead of 4.8) and unpacked when the first figure comes into sight, so that
it costs nothing when a page opens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from cdvft_bench.analysis.groups import title_of
from cdvft_bench.core.text import clean, markdown, plural
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.dataset import compressed

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("data.js", "grid.js", "plots.js", "explore.js", "page.js")
_SYMBOLS = {
    "o": ("circle", "●"), "s": ("square", "■"), "^": ("triangle-up", "▲"), "v": ("triangle-down", "▼"),
    "D": ("diamond", "◆"), "P": ("cross", "✚"), "X": ("x", "✖"), "h": ("hexagon", "⬢"), "|": ("line-ns-open", "|"),
    "*": ("star", "★"), "<": ("triangle-left", "◀"), ">": ("triangle-right", "▶"), "p": ("pentagon", "⬟"),
    "d": ("diamond-tall", "♦"), "8": ("octagon", "⯃"),
}  # fmt: skip
_VERDICTS = {
    "slower": ("#d55e00", "triangle-up", "▲"), "faster": ("#0072b2", "triangle-down", "▼"),
    "no difference": ("#8a8a8a", "circle", "●"), "not compared": ("#8a8a8a", "x", "✖"),
}  # fmt: skip


def render_html(template: str, page: object, styles: Styles, methods: set[str], blocks: Mapping[str, str]) -> str:
    """A self-contained page.

    Args:
        template: its name. page: what it prints.
        styles, methods: looks of the methods that occur.
        blocks: packed data by the name of their block, see ``dataset.embed``.
    """
    from markupsafe import Markup

    environment = _environment(autoescape=True)
    script = "".join(_source(environment, name) for name in SCRIPTS)
    library, library_hash = _plotly()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src '{_hash(script.encode())}' '{library_hash}'"
    )
    everything = {"data-config": compressed(json.dumps(_config(styles, methods)).encode()), **blocks}
    return environment.get_template(template).render(
        page=page,
        script=Markup(script),
        style=Markup(_source(environment, "page.css")),
        policy=policy,
        plural=plural,
        pack=lambda html: compressed(str(html).encode()),
        blocks={**everything, "library-plotly": library},
    )


def render_markdown(template: str, page: object, table: Any) -> str:
    """The same as GitHub-flavoured Markdown; figures are links to the files beside it."""
    from markupsafe import Markup

    def printed(value: object) -> object:
        return value if isinstance(value, Markup) else markdown(value)

    environment = _environment(autoescape=False, finalize=printed)
    text = environment.get_template(template).render(
        page=page, raw=Markup, table=lambda t: Markup(table(t)), plural=plural
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("cdvft_bench.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, **options,
    )  # fmt: skip


def _source(environment: Environment, name: str) -> str:
    loader = environment.loader
    assert loader is not None
    return loader.get_source(environment, name)[0]


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js, packed, and the hash by which the policy knows it."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs().encode()
    return compressed(code), _hash(code)


def _hash(script: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}"


def _config(styles: Styles, methods: set[str]) -> dict[str, object]:
    looks = {
        clean(name): {
            "title": title_of(name), "color": styles[name].color, "symbol": _SYMBOLS[styles[name].marker][0],
            "glyph": _SYMBOLS[styles[name].marker][1], "known": styles.knows(name),
        }
        for name in sorted(methods)
    }  # fmt: skip
    verdicts = {
        word: {"title": word, "color": color, "symbol": symbol, "glyph": glyph}
        for word, (color, symbol, glyph) in _VERDICTS.items()
    }
    return {"styles": verdicts | looks}
