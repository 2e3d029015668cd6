"""One HTML file that tells how a model did: tables and curves, readable offline, without a script.

Invariant: the same sections give the same bytes; nothing is fetched. Text is escaped here, charts come as
finished SVG (ml/charts.py). Leaves out: which figures (the command decides).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1c1c;--back:#fff;--line:#d8d8d8;--soft:#f4f4f4}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--back:#161616;--line:#3c3c3c;--soft:#222}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:72rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}thead th{background:var(--soft)}
.scroll{overflow-x:auto}.charts{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;flex:1 1 26rem;max-width:36rem}svg{width:100%;height:auto}
svg text{font-size:11px;fill:var(--ink)}.grid{stroke:var(--line);fill:none}.mark{stroke:var(--ink);fill:none}
figcaption span{margin-right:1rem;white-space:nowrap}
figcaption i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
code{font-size:.85em;word-break:break-all}
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence or two, a table (first row: its head) and charts (SVG)."""

    title: str
    words: str = ""
    table: Sequence[Sequence[str]] = ()
    charts: Sequence[str] = field(default=())


def write_page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole HTML document."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td><code>{escape(v)}</code></td></tr>" for k, v in facts)
    body = "".join(_write_section(section) for section in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><h1>{escape(title)}</h1><div class="scroll"><table>{rows}</table></div>{body}</body></html>\n'
    )


def _write_section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.words:
        parts.append(f"<p>{escape(section.words)}</p>")
    if section.charts:
        parts.append(f'<div class="charts">{"".join(section.charts)}</div>')
    if section.table:
        head, *rows = section.table
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        lines = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        parts.append(
            f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
        )
    return "".join(parts) + "</section>"
