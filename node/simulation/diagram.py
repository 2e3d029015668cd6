"""A run as a space-time diagram: one HTML file with an SVG in it, which asks nothing of the network.

Time runs to the right, each node has a lane, each message is an arrow from when it was sent to when it
arrives; lost ones end in a cross. Everything tells what it is when the pointer rests on it.

Invariant: the file is well-formed XML besides its doctype, so that any XML reader can check it.
Source: Lamport, "Time, Clocks, and the Ordering of Events" (1978). Leaves out: bodies being fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from node.simulation.config import SimulationConfig
from node.simulation.diagram_page import COLORS, make_page
from node.simulation.timeline import CERTIFICATE_NAMES, Entry, Sent, Timeline

SHOWN_MS_MAX: Final = 4_000  # some forty views: about what a browser scrolls through smoothly
PX_IN_MS: Final = 4  # a message of 20 ms is 80 px wide: the five phases of a view can be told apart
LANE_PX: Final = 120
LEFT_PX: Final = 90
TOP_PX: Final = 50
LABEL_CHARS: Final = 60


class _Drawing:
    """Coordinates, and the pieces drawn so far."""

    def __init__(self, timeline: Timeline, config: SimulationConfig) -> None:
        self.nodes = config.nodes
        last_ms = max((entry.at_ms for entry in timeline.entries), default=0)
        self.until_ms = min(last_ms, SHOWN_MS_MAX) + 20
        self.villains = timeline.villains
        self.entries = [entry for entry in timeline.entries if entry.at_ms <= self.until_ms]
        self.sent = [sent for sent in timeline.sent if sent.at_ms <= self.until_ms]
        self.width = LEFT_PX + self.until_ms * PX_IN_MS + 40
        self.height = TOP_PX + self.nodes * LANE_PX
        self.is_cut_short = last_ms > self.until_ms

    def x(self, at_ms: int) -> int:
        return LEFT_PX + at_ms * PX_IN_MS

    def y(self, node: int) -> int:
        return TOP_PX + node * LANE_PX + LANE_PX // 2


def draw_diagram(timeline: Timeline, config: SimulationConfig, seed: int, replay: str) -> str:
    """The HTML page. `replay` is the command that makes this run again; it is shown."""
    drawing = _Drawing(timeline, config)
    layers = (_draw_cuts, _draw_lanes, _draw_messages, _draw_marks)
    pieces = "\n".join(piece for layer in layers for piece in layer(drawing))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="diagram" viewBox="0 0 {drawing.width} {drawing.height}" '
        f'width="{drawing.width}" height="{drawing.height}">\n{pieces}\n</svg>'
    )
    complaints = [entry.text for entry in timeline.entries if entry.kind == "violation"]
    villains = ", ".join(config.all_villains) or "none"
    about = f"{config.nodes} nodes, stakes {', '.join(map(str, config.all_stakes))}; villains: {villains}; seed {seed}"
    if drawing.is_cut_short:
        about += f"; the first {drawing.until_ms} ms are shown"
    return make_page(svg, about, replay, complaints)


# --- layers, from the ground up ------------------------------------------------------------------


def _draw_cuts(drawing: _Drawing) -> Iterator[str]:
    """Shaded while some links are cut; a line where the world heals."""
    began: Entry | None = None
    for entry in [*drawing.entries, Entry(drawing.until_ms, -1, "heal", "")]:
        if entry.kind not in ("cut", "heal"):
            continue
        if began is not None and began.at_ms < entry.at_ms:
            x, width = drawing.x(began.at_ms), (entry.at_ms - began.at_ms) * PX_IN_MS
            title = (
                f"Cut from {began.at_ms} to {entry.at_ms} ms. Not heard (from&gt;to): {escape(began.text)}"
            )
            yield f'<rect class="cut" x="{x}" y="24" width="{width}" height="{drawing.height - 24}"><title>{title}</title></rect>'
            yield f'<text class="note" x="{x + 4}" y="38">cut {escape(began.text[:LABEL_CHARS])}</text>'
        began = entry if entry.kind == "cut" and entry.text != "none" else None
        if entry.kind == "heal" and entry.at_ms < drawing.until_ms:
            x = drawing.x(entry.at_ms)
            yield f'<line class="heal" x1="{x}" x2="{x}" y1="0" y2="{drawing.height}"/>'
            yield f'<text class="heal-word" x="{x + 4}" y="14">the world heals</text>'


def _draw_lanes(drawing: _Drawing) -> Iterator[str]:
    for at_ms in range(0, drawing.until_ms, 100):
        x = drawing.x(at_ms)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="20" y2="{drawing.height}"/>'
        yield f'<text class="clock" x="{x + 2}" y="{drawing.height - 4}">{at_ms} ms</text>'
    for node in range(drawing.nodes):
        y = drawing.y(node)
        yield f'<text class="name" x="8" y="{y + 5}">node {node}</text>'
        if node in drawing.villains:
            yield f'<text class="note" x="8" y="{y + 20}">{escape(drawing.villains[node])}</text>'
        since: int | None = None  # up since
        for entry in [*drawing.entries, Entry(drawing.until_ms, node, "crash", "")]:
            if entry.node != node:
                continue
            if entry.kind == "start":
                since = entry.at_ms
            elif entry.kind == "crash" and since is not None:
                x1, x2 = drawing.x(since), drawing.x(entry.at_ms)
                yield f'<line class="up" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'
                since = None


def _draw_messages(drawing: _Drawing) -> Iterator[str]:
    for sent in drawing.sent:
        for arrival_ms in sent.arrivals_ms:
            yield _draw_arrow(drawing, sent, arrival_ms)
        if not sent.arrivals_ms:
            yield _draw_lost(drawing, sent)


def _title(sent: Sent, end: str) -> str:
    told = f"{sent.kind}, view {sent.view}: {sent.text}. From {sent.sender} to {sent.receiver}, {sent.at_ms} ms, {end}"
    return f"<title>{escape(told)}</title>"


def _draw_arrow(drawing: _Drawing, sent: Sent, arrival_ms: int) -> str:
    x1, y1, x2, y2 = (
        drawing.x(sent.at_ms),
        drawing.y(sent.sender),
        drawing.x(arrival_ms),
        drawing.y(sent.receiver),
    )
    return (
        f'<line class="m {sent.kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#tip-{sent.kind})">'
        f"{_title(sent, f'arrives at {arrival_ms} ms')}</line>"
    )


def _draw_lost(drawing: _Drawing, sent: Sent) -> str:
    x1, y1 = drawing.x(sent.at_ms), drawing.y(sent.sender)
    x2, y2 = x1 + 9 * PX_IN_MS, y1 + (drawing.y(sent.receiver) - y1) * 2 // 5
    cross = f"M{x2 - 4} {y2 - 4}L{x2 + 4} {y2 + 4}M{x2 - 4} {y2 + 4}L{x2 + 4} {y2 - 4}"
    return (
        f'<g class="m lost {sent.kind}">{_title(sent, "lost")}'
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/><path d="{cross}"/></g>'
    )


def _draw_marks(drawing: _Drawing) -> Iterator[str]:
    seen: set[tuple[int, str, int]] = set()
    kinds = frozenset(CERTIFICATE_NAMES.values())
    for sent in drawing.sent:
        key = (sent.sender, sent.kind, sent.view)
        if sent.kind in kinds and key not in seen:
            seen.add(key)
            x, y = drawing.x(sent.at_ms), drawing.y(sent.sender)
            title = escape(f"node {sent.sender} holds the {sent.kind} of view {sent.view} ({sent.text})")
            color = COLORS[sent.kind][0]
            yield (
                f'<path class="certificate" fill="{color}" d="M{x} {y - 7}l6 7l-6 7l-6 -7z"><title>{title}</title></path>'
            )
    for entry in drawing.entries:
        if entry.node >= 0:
            yield from _draw_mark(entry, drawing.x(entry.at_ms), drawing.y(entry.node))


def _draw_mark(entry: Entry, x: int, y: int) -> Iterator[str]:
    title = f"<title>{escape(f'{entry.at_ms} ms, node {entry.node}: {entry.kind} {entry.text}')}</title>"
    match entry.kind:
        case "view":
            view, _, leader = entry.text.partition(" led by ")
            label = f"v{view}★" if leader == str(entry.node) else f"v{view}"
            yield f'<line class="view" x1="{x}" x2="{x}" y1="{y - 16}" y2="{y + 16}">{title}</line>'
            yield f'<text class="view-word" x="{x + 2}" y="{y - 18}">{label}{title}</text>'
        case "final":
            yield f'<rect class="final" x="{x - 6}" y="{y + 14}" width="12" height="12">{title}</rect>'
            yield f'<text class="final-word" x="{x + 9}" y="{y + 24}">final {escape(entry.text)}</text>'
        case "crash":
            yield f'<path class="crash" d="M{x - 8} {y - 8}l16 16M{x - 8} {y + 8}l16 -16">{title}</path>'
        case "start":
            yield f'<path class="start" d="M{x - 6} {y - 8}l12 8l-12 8z">{title}</path>'
        case "fault" | "halt" | "evidence":
            yield f'<circle class="{entry.kind}" cx="{x}" cy="{y + 34}" r="6">{title}</circle>'
            yield f'<text class="note" x="{x + 9}" y="{y + 38}">{escape(entry.text[:LABEL_CHARS])}</text>'
