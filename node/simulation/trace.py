"""A run as text: who sent what to whom, views, final blocks, faults; one line each, in aligned columns.

What one node says to several in the same ms is one line; each receiver stands with the ms in which the
message reaches it, or `lost`. A message that comes twice has two times.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from node.simulation.config import SimulationConfig
from node.simulation.timeline import Entry, Sent, Timeline

HEADING = ("ms", "node", "what", "view", "detail")
_VERBS = {
    "start": "starts",
    "crash": "CRASHES",
    "view": "enters",
    "final": "FINAL",
    "commit": "commits",
    "heal": "HEALS",
    "cut": "CUT",
    "fault": "FAULT",
    "halt": "HALTS",
    "evidence": "EVIDENCE",
    "violation": "VIOLATION",
}


def format_trace(timeline: Timeline, config: SimulationConfig, seed: int) -> Iterator[str]:
    """The lines of a readable trace."""
    villains = f", villains {', '.join(config.all_villains)}" if config.all_villains else ""
    yield f"# {config.nodes} nodes, stakes {config.all_stakes}{villains}, seed {seed}"
    yield f"# faults for {config.faulty_ms} ms, then the world heals; node * is the whole world"
    yield _format_row(*HEADING)
    for row in _list_rows(timeline):
        yield _format_row(*row)


def _format_row(at_ms: str, node: str, what: str, view: str, detail: str) -> str:
    return f"{at_ms:>6}  {node:<4}  {what:<13}  {view:>4}  {detail}".rstrip()


def _list_rows(timeline: Timeline) -> list[tuple[str, str, str, str, str]]:
    rows: list[tuple[int, int, tuple[str, str, str, str, str]]] = []
    for entry in timeline.entries:
        rows.append((entry.at_ms, len(rows), _make_row(entry)))

    def key(sent: Sent) -> tuple[int, int, str, int, str]:
        return sent.at_ms, sent.sender, sent.kind, sent.view, sent.text

    for (at_ms, sender, kind, view, text), group in groupby(timeline.sent, key):
        heard = " ".join(f"{sent.receiver}@{_format_arrivals(sent)}" for sent in group)
        rows.append((at_ms, len(rows), (str(at_ms), str(sender), kind, str(view), f"{text}  -> {heard}")))
    rows.sort(key=lambda row: row[:2])
    return [row for _, _, row in rows]


def _make_row(entry: Entry) -> tuple[str, str, str, str, str]:
    node = "*" if entry.node < 0 else str(entry.node)
    view, detail = "", entry.text
    if entry.kind in ("view", "final"):
        view, _, detail = entry.text.partition(" ")
    return str(entry.at_ms), node, _VERBS.get(entry.kind, entry.kind), view, detail


def _format_arrivals(sent: Sent) -> str:
    return "+".join(map(str, sent.arrivals_ms)) or "lost"
