"""A replay on a terminal: one live block of lines on stderr, and nothing at all in a pipe."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from node.replay.settings import Snapshot

FRAMES_PER_SECOND: Final = 8
PACE_WINDOW_S: Final = 2.0  # what "now" means for a pace

WORDS: Final = {
    "connecting": "asking the nodes",
    "funding": "funding the senders",
    "replaying": "replaying",
    "settling": "waiting for what is under way",
    "comparing": "comparing the nodes",
}


class Display:
    """A context manager; `show` takes snapshots as often as they come."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._last: Snapshot | None = None
        self._paces: list[tuple[float, int]] = []
        self._live = Live(
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            get_renderable=self._render,
        )

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        self._paces.append((snapshot.seconds, snapshot.final))
        while len(self._paces) > 2 and self._paces[0][0] < snapshot.seconds - PACE_WINDOW_S:
            self._paces.pop(0)

    def _render(self) -> Table | Text:
        s = self._last
        if s is None:
            return Text("")
        table = Table.grid(padding=(0, 2))
        done, total = (s.done, s.total) if s.phase == "funding" else (s.final + s.refused + s.failed, s.rows)
        table.add_row(
            Text(WORDS[s.phase], style="bold"),
            ProgressBar(total=max(total, 1), completed=done, width=40),
            f"{done:,} of {total:,}",
        )
        (first_s, first), (last_s, last) = self._paces[0], self._paces[-1]
        pace = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
        table.add_row("", f"{s.final:,} final   {pace:,.0f} a second   height {s.height:,}")
        words = f"{s.refused:,} refused   {s.flagged:,} flagged   {s.frauds_caught:,} frauds caught"
        table.add_row("", f"{words}   {s.reports_final:,} reported")
        return table
