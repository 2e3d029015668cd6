"""The page around a space-time diagram: style, legend, an explanation, and a little script to zoom.

Self-contained: no font, script, style or picture from elsewhere.
"""

from __future__ import annotations

from html import escape
from typing import Final

# Message kind -> colour, and what it is in a few words. Votes are pale, their certificates full.
COLORS: Final[dict[str, tuple[str, str]]] = {
    "proposal": ("#1f5fbf", "the leader's block"),
    "notarize": ("#e39a3b", "vote: I checked this block"),
    "notarization": ("#b65c00", "certificate: a quorum checked it"),
    "nullify": ("#c58be0", "vote: let us skip this view"),
    "nullification": ("#7d2fa8", "certificate: a quorum skips it"),
    "finalize": ("#6cbf84", "vote: I know that a quorum checked it"),
    "finalization": ("#147a36", "certificate: the block is final"),
    "request": ("#888888", "asks for what is missing"),
}

_STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 16px; color: #222; background: #fff; }
h1 { font-size: 18px; margin: 0 0 4px; } p { max-width: 100ch; margin: 6px 0; } code { background: #eee; padding: 1px 4px; }
#frame { overflow: auto; border: 1px solid #ccc; margin-top: 8px; }
.legend label { margin-right: 14px; white-space: nowrap; } .legend b { display: inline-block; width: 22px; height: 4px; vertical-align: middle; }
.bad { background: #fdd; border: 2px solid #c00; padding: 6px 10px; font-weight: bold; }
svg text { font: 11px system-ui, sans-serif; } svg .name { font-size: 14px; font-weight: bold; }
.m { stroke-width: 1.3; opacity: .65; fill: none; } .m:hover { stroke-width: 4; opacity: 1; } .lost { stroke-dasharray: 4 3; }
.lost path { stroke: #c00; stroke-width: 2; stroke-dasharray: none; }
.cut { fill: #f3d9d9; opacity: .55; } .grid { stroke: #eee; } .clock { fill: #999; } .note { fill: #933; }
.up { stroke: #444; stroke-width: 3; } .view { stroke: #222; stroke-width: 1.5; } .view-word { fill: #222; font-weight: bold; }
.final { fill: #147a36; } .final-word { fill: #147a36; font-weight: bold; } .crash { stroke: #c00; stroke-width: 4; }
.start { fill: #147a36; } .fault { fill: #d07000; } .evidence { fill: #1f5fbf; } .halt { fill: #c00; }
.certificate { stroke: #fff; } .heal { stroke: #147a36; stroke-width: 2; stroke-dasharray: 6 4; } .heal-word { fill: #147a36; font-weight: bold; }
"""

_EXPLANATION: Final = """Time runs to the right; each lane is a validator. In each view (v1, v2, …; ★ marks the leader
on its own lane) the leader sends a proposal to all. Who has checked the block answers with a notarize vote to all; more
than two thirds of the stake make a notarization (◆), which opens the next view. Whoever holds it, and has not voted to
skip the view, votes finalize; a quorum of those is a finalization, and the block and all before it are final (■) for
ever. When a leader is silent or its block bad, validators vote nullify instead, and a nullification opens the next view.
No validator ever signs both nullify and finalize in one view: since two quorums always share an honest validator,
a view can never be both skipped and final. That is why what you see here holds in spite of the faults: messages lost (✕ on
a dashed line), links cut (shaded), validators crashed (red cross; the lane is empty while they are down) and back (▶)."""

_SCRIPT: Final = """
const svg = document.getElementById("diagram"), wide = svg.viewBox.baseVal.width, high = svg.viewBox.baseVal.height;
let zoom = 1;
function scale(factor) {
  const frame = document.getElementById("frame"), middle = (frame.scrollLeft + frame.clientWidth / 2) / zoom;
  zoom = Math.min(6, Math.max(0.1, factor === 0 ? 1 : zoom * factor));
  svg.setAttribute("width", wide * zoom); svg.setAttribute("height", high * zoom);
  frame.scrollLeft = middle * zoom - frame.clientWidth / 2;
}
for (const box of document.querySelectorAll("input[type=checkbox]"))
  box.addEventListener("change", function () {
    for (const line of svg.querySelectorAll(".m." + box.value)) line.style.display = box.checked ? "" : "none";
  });
"""


def make_page(svg: str, about: str, replay: str, complaints: list[str]) -> str:
    """The whole file. `svg` lacks its arrow heads, which are given here, one for each colour."""
    bad = "".join(f'<p class="bad">Violation: {escape(complaint)}</p>\n' for complaint in complaints)
    strokes = "\n".join(f".m.{kind} {{ stroke: {color}; }}" for kind, (color, _) in COLORS.items())
    tips = "".join(
        f'<marker id="tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}"/></marker>'
        for kind, (color, _) in COLORS.items()
    )
    svg = svg.replace(">", f"><defs>{tips}</defs>", 1)
    legend = "\n".join(
        f'<label><input type="checkbox" checked="checked" value="{kind}"/> '
        f'<b style="background:{color}"></b> {kind}: {escape(words)}</label>'
        for kind, (color, words) in COLORS.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>Consensus, message by message</title>
<style>{_STYLE}{strokes}</style></head><body>
<h1>Consensus, message by message</h1>
<p>{escape(about)}. To see it again: <code>{escape(replay)}</code></p>
{bad}<p>{_EXPLANATION}</p>
<p class="legend">{legend}</p>
<p><button onclick="scale(1.5)">larger</button> <button onclick="scale(1/1.5)">smaller</button>
<button onclick="scale(0)">as it was</button> Rest the pointer on anything to read what it is.</p>
<div id="frame">
{svg}
</div>
<script>//<![CDATA[
{_SCRIPT}
//]]></script></body></html>
"""
