"""The language of scenario files: one statement a line, `#` begins a comment.

    validators 4                         stakes 33 23 22 22            seed 7
    villain 3 equivocator                leader 0 in views 1 to 3      faults 4s
    latency 10ms      delta 100ms        loss 0.1                      absent 1
    partition 0 1 | 2 3 in view 3 for 600ms
    lose finalize certificates from 0 to 2 3 between 1s and 2s
    crash 2 after nullify in view 4 for 500ms       crash all at 1s
    restart 2 at 3s                      forget journal of 2 at 1s     judging takes 80ms at 3
    cut 3 between 1s and 2s              beyond the promise            expect final >= 5
    full nodes                           liar 3 wrong-score            forget store of 2 at 1s
    stop 1 at 1s for 300ms               pause 1 at 1s for 300ms       forget store of 2 after notarize in view 6
    epochs of 3 blocks                   lose finalize in view 3 of epoch 0 for 500ms
    joiners 1                            (whole nodes with epochs: nodes besides that bond, and leave again)

`in view` is about messages *of* that view (of every epoch, unless one is named), whoever's view it is by
then; `for` counts from the first of them; `leader` is about the first epoch. Faults end with `faults`; then
everything heals, and finality must come back. Nodes are 0, 1, …; 0' is the second machine of a double
identity. `full nodes` at the top: whole nodes act, clients pay. Errors name the line and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from consensus.errors import Rejected
from node.simulation.scenarios.expectations import check_words
from node.simulation.scenarios.plan import (
    FORGET_STORE,
    MESSAGE_WORDS,
    SECOND,
    Crash,
    Expectation,
    Loss,
    Partition,
    Restart,
    Scenario,
    Span,
)
from node.simulation.villains import VILLAINS

VIEW_MAX: Final = 2**53  # for ever
TEXT_BYTES_MAX: Final = 65_536  # a scenario is read by people
_SPAN: Final = (
    r"(?: in views? (?P<low>\d+)(?: to (?P<high>\d+|ever))?(?: of epoch (?P<epoch>\d+))?(?: for (?P<lasting>\w+))?)?"
    r"(?: between (?P<begin>\w+) and (?P<end>\w+))?"
)
_SPEAKABLE: Final = ("proposal", "notarize", "nullify", "finalize")


class _Reader:
    """Takes one statement after the other."""

    def __init__(self) -> None:
        self.line = 0
        self.numbers: dict[str, int] = {
            "seed": 1,
            "faults": 2_000,
            "latency": 20,
            "delta": 60,
            "absent": 0,
            "epochs": 0,
            "joiners": 0,
        }
        self.loss = 0.0
        self.stakes: tuple[int, ...] = (1, 1, 1, 1)
        self.is_beyond = False
        self.is_full = False
        self.villains: dict[int, str] = {}
        self.leaders: dict[int, int] = {}
        self.slow: dict[int, int] = {}
        self.partitions: list[Partition] = []
        self.losses: list[Loss] = []
        self.crashes: list[Crash] = []
        self.restarts: list[Restart] = []
        self.expectations: list[Expectation] = []

    def read(self, line: int, text: str) -> None:
        word = text.split(maxsplit=1)[0]
        found = _STATEMENTS.get(word)
        if found is None:
            known = ", ".join(_STATEMENTS)
            raise Rejected(
                f'nothing begins with "{word}"', field=f"line {line}", mend=f"begin with one of {known}"
            )
        pattern, example, act = found
        match = re.fullmatch(pattern, " ".join(text.split()))
        if match is None:
            raise Rejected(f'"{text}" is not understood', field=f"line {line}", mend=f"write e.g. {example}")
        try:
            self.line = line
            act(self, match)
        except ValueError as error:
            raise Rejected(str(error), field=f"line {line}", mend=f"write e.g. {example}") from None

    # --- values -------------------------------------------------------------------------------------

    def node(self, text: str) -> int:
        number = int(text.rstrip("'"))
        if number >= len(self.stakes):
            raise ValueError(f"there is no validator {number}: {len(self.stakes)} take part, counted from 0")
        if text.endswith("'") and self.villains.get(number) != "double-identity":
            raise ValueError(f"{text} is a second machine: write `villain {number} double-identity` above")
        return number + (SECOND if text.endswith("'") else 0)

    def nodes(self, text: str) -> frozenset[int]:
        if text == "all":
            return frozenset(range(len(self.stakes)))
        return frozenset(map(self.node, text.split()))

    def span(self, match: re.Match[str]) -> Span:
        found = match.groupdict()
        views = times_ms = lasting_ms = None
        if found["low"]:
            low, high = int(found["low"]), found["high"] or found["low"]
            views = range(low, VIEW_MAX if high == "ever" else int(high) + 1)
            lasting_ms = _read_ms(found["lasting"]) if found["lasting"] else None
        if found["begin"]:
            times_ms = range(_read_ms(found["begin"]), _read_ms(found["end"]))
        return Span(views, lasting_ms, times_ms, int(found["epoch"]) if found["epoch"] else None)

    # --- statements ---------------------------------------------------------------------------------

    def take_full(self, _: re.Match[str]) -> None:
        if self.slow:
            raise ValueError("judging takes its own time in whole nodes: leave `judging takes` out")
        self.is_full = True

    def need_full(self, what: str) -> None:
        if not self.is_full:
            raise ValueError(f"only whole nodes {what}: write `full nodes` above")

    def take_validators(self, match: re.Match[str]) -> None:
        self.stakes = (1,) * int(match["count"])

    def take_stakes(self, match: re.Match[str]) -> None:
        self.stakes = tuple(map(int, match["stakes"].split()))

    def take_number(self, match: re.Match[str]) -> None:
        self.numbers[match["name"]] = int(match["number"])

    def take_time(self, match: re.Match[str]) -> None:
        self.numbers[match["name"]] = _read_ms(match["time"])

    def take_loss(self, match: re.Match[str]) -> None:
        self.loss = float(match["share"])

    def take_beyond(self, _: re.Match[str]) -> None:
        self.is_beyond = True

    def take_villain(self, match: re.Match[str]) -> None:
        if match["name"] not in VILLAINS:
            raise ValueError(f'no villain is called "{match["name"]}", only {", ".join(VILLAINS)}')
        self.villains[self.node(match["node"])] = match["name"]

    def take_liar(self, match: re.Match[str]) -> None:
        from node.simulation.full_nodes.liars import LIARS  # engines alone need no whole node

        self.need_full("lie at their network's door")
        if match["name"] not in LIARS:
            raise ValueError(f'no liar is called "{match["name"]}", only {", ".join(LIARS)}')
        self.villains[self.node(match["node"])] = match["name"]

    def take_leader(self, match: re.Match[str]) -> None:
        for view in range(int(match["low"]), int(match["high"] or match["low"]) + 1):
            self.leaders[view] = self.node(match["node"])

    def take_judging(self, match: re.Match[str]) -> None:
        if self.is_full:
            raise ValueError("judging takes its own time in whole nodes: leave this out")
        self.slow |= dict.fromkeys(self.nodes(match["nodes"]), _read_ms(match["time"]))

    def take_partition(self, match: re.Match[str]) -> None:
        groups = tuple(self.nodes(group.strip()) for group in match["groups"].split("|"))
        self.partitions.append(Partition(groups, self.span(match)))

    def take_cut(self, match: re.Match[str]) -> None:
        nodes = self.nodes(match["nodes"])
        rest = frozenset(range(len(self.stakes))) - nodes
        self.partitions.append(Partition((rest, nodes), self.span(match)))

    def take_lose(self, match: re.Match[str]) -> None:
        names: frozenset[str] | None = None
        if match["names"] != "everything":
            words = match["names"].split()
            unknown = [word for word in words if word not in MESSAGE_WORDS]
            if unknown:
                raise ValueError(
                    f'no message is called "{unknown[0]}", only everything, {", ".join(MESSAGE_WORDS)}'
                )
            names = frozenset().union(*(MESSAGE_WORDS[word] for word in words))
        senders = self.nodes(match["senders"]) if match["senders"] else None
        receivers = self.nodes(match["receivers"]) if match["receivers"] else None
        self.losses.append(Loss(names, senders, receivers, self.span(match)))

    def take_crash(self, match: re.Match[str]) -> None:
        down_ms = _read_ms(match["down"]) if match["down"] else None
        nodes = self.nodes(match["nodes"])
        if match["time"]:
            self.crashes.append(Crash(nodes, at_ms=_read_ms(match["time"]), down_ms=down_ms))
            return
        if match["name"] not in _SPEAKABLE:
            raise ValueError(f'nobody says "{match["name"]}", only {", ".join(_SPEAKABLE)}')
        is_before = match["when"] == "before"
        self.crashes.append(Crash(nodes, None, match["name"], int(match["view"]), is_before, down_ms))

    def take_halt(self, match: re.Match[str]) -> None:
        self.need_full("stop in order, or stand still")
        down_ms = _read_ms(match["down"]) if match["down"] else None
        at_ms = _read_ms(match["time"])
        self.crashes.append(Crash(self.nodes(match["nodes"]), at_ms, down_ms=down_ms, way=match["way"]))

    def take_restart(self, match: re.Match[str]) -> None:
        self.restarts.append(Restart(self.nodes(match["nodes"]), _read_ms(match["time"])))

    def take_forget(self, match: re.Match[str]) -> None:
        nodes, what, time = self.nodes(match["nodes"]), match["what"], match["time"]
        if what == FORGET_STORE or not time:
            self.need_full("lose a store, or anything upon a word")
        if match["name"] and match["name"] not in _SPEAKABLE:
            raise ValueError(f'nobody says "{match["name"]}", only {", ".join(_SPEAKABLE)}')
        if not time:
            self.crashes.append(Crash(nodes, None, match["name"], int(match["view"]), down_ms=0, way=what))
        elif what == FORGET_STORE:
            self.crashes.append(Crash(nodes, _read_ms(time), down_ms=0, way=what))
        else:
            self.restarts.append(Restart(nodes, _read_ms(time), is_forgetful=True))

    def take_expect(self, match: re.Match[str]) -> None:
        words = tuple(match["words"].split())
        check_words(words)
        self.expectations.append(Expectation(self.line, match["words"], words))


def _read_ms(text: str) -> int:
    found = re.fullmatch(r"(\d+)(ms|s)", text)
    if found is None:
        raise ValueError(f'"{text}" is no time: write 250ms or 2s')
    return int(found[1]) * (1000 if found[2] == "s" else 1)


_NODES: Final = r"(?:all|\d+(?: \d+)*)"
_LOSE: Final = (
    r"lose (?P<names>[a-z]+(?: (?!in |from |to |between )[a-z]+)*)"
    rf"(?: from (?P<senders>{_NODES}))?(?: to (?P<receivers>{_NODES}))?{_SPAN}"
)
_CRASH: Final = (
    rf"crash (?P<nodes>{_NODES}) "
    r"(?:at (?P<time>\w+)|(?P<when>before|after) (?P<name>\w+) in view (?P<view>\d+))"
    r"(?: for (?P<down>\w+))?"
)
_HALT: Final = rf"(?P<way>stop|pause) (?P<nodes>{_NODES}) at (?P<time>\w+)(?: for (?P<down>\w+))?"
_FORGET: Final = (
    rf"forget (?P<what>journal|store) of (?P<nodes>{_NODES}) "
    r"(?:at (?P<time>\w+)|after (?P<name>\w+) in view (?P<view>\d+))"
)
_Act = Callable[[_Reader, re.Match[str]], None]
_STATEMENTS: Final[dict[str, tuple[str, str, _Act]]] = {
    "full": (r"full nodes", "full nodes", _Reader.take_full),
    "validators": (r"validators (?P<count>[1-9]\d*)", "validators 4", _Reader.take_validators),
    "stakes": (r"stakes (?P<stakes>[1-9]\d*(?: [1-9]\d*)*)", "stakes 33 23 22 22", _Reader.take_stakes),
    "seed": (r"(?P<name>seed) (?P<number>\d+)", "seed 7", _Reader.take_number),
    "absent": (r"(?P<name>absent) (?P<number>\d+)", "absent 1", _Reader.take_number),
    "faults": (r"(?P<name>faults) (?P<time>\w+)", "faults 4s", _Reader.take_time),
    "latency": (r"(?P<name>latency) (?P<time>\w+)", "latency 20ms", _Reader.take_time),
    "epochs": (r"(?P<name>epochs) of (?P<number>[1-9]\d*) blocks", "epochs of 3 blocks", _Reader.take_number),
    "joiners": (r"(?P<name>joiners) (?P<number>[1-9]\d*)", "joiners 1", _Reader.take_number),
    "delta": (r"(?P<name>delta) (?P<time>\w+)", "delta 100ms", _Reader.take_time),
    "loss": (r"loss (?P<share>0(?:\.\d+)?)", "loss 0.1", _Reader.take_loss),
    "beyond": (r"beyond the promise", "beyond the promise", _Reader.take_beyond),
    "villain": (r"villain (?P<node>\d+) (?P<name>[\w-]+)", "villain 3 equivocator", _Reader.take_villain),
    "liar": (r"liar (?P<node>\d+) (?P<name>[\w-]+)", "liar 3 wrong-score", _Reader.take_liar),
    "leader": (
        r"leader (?P<node>\d+) in views? (?P<low>[1-9]\d*)(?: to (?P<high>\d+))?",
        "leader 0 in views 1 to 3",
        _Reader.take_leader,
    ),
    "judging": (
        rf"judging takes (?P<time>\w+) at (?P<nodes>{_NODES})",
        "judging takes 80ms at 3",
        _Reader.take_judging,
    ),
    "partition": (
        rf"partition (?P<groups>\d+'?(?:(?: \|)? \d+'?)*){_SPAN}",
        "partition 0 1 | 2 3 in view 3 for 600ms",
        _Reader.take_partition,
    ),
    "cut": (rf"cut (?P<nodes>{_NODES}){_SPAN}", "cut 3 between 1s and 2s", _Reader.take_cut),
    "lose": (
        _LOSE,
        "lose finalize certificates from 0 to 2 3 in views 1 to 4",
        _Reader.take_lose,
    ),
    "crash": (
        _CRASH,
        "crash 2 after nullify in view 4 for 500ms",
        _Reader.take_crash,
    ),
    "stop": (_HALT, "stop 1 at 1s for 300ms", _Reader.take_halt),
    "pause": (_HALT, "pause 1 at 1s for 300ms", _Reader.take_halt),
    "restart": (rf"restart (?P<nodes>{_NODES}) at (?P<time>\w+)", "restart 2 at 3s", _Reader.take_restart),
    "forget": (
        _FORGET,
        "forget journal of 2 at 1s",
        _Reader.take_forget,
    ),
    "expect": (r"expect (?P<words>.+)", "expect final >= 5", _Reader.take_expect),
}


def parse_scenario(text: str) -> Scenario:
    """The scenario that a file's text tells. Raises Rejected, which names the line and the mend."""
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Rejected(f"longer than {TEXT_BYTES_MAX} bytes", field="scenario", mend="tell less")
    reader = _Reader()
    title = ""
    for number, line in enumerate(text.splitlines(), start=1):
        statement, _, comment = line.partition("#")
        title = title or comment.strip()
        if statement.strip():
            reader.read(number, statement.strip())
    if not reader.expectations:
        raise Rejected("it expects nothing", field="scenario", mend="end it with e.g. expect no violation")
    numbers = reader.numbers
    return Scenario(
        title=title,
        is_full=reader.is_full,
        stakes=reader.stakes,
        seed=numbers["seed"],
        faults_ms=numbers["faults"],
        latency_ms_max=numbers["latency"],
        delta_ms=numbers["delta"],
        epoch_blocks=numbers["epochs"],
        joiners=numbers["joiners"],
        loss=reader.loss,
        absent=numbers["absent"],
        is_beyond_promise=reader.is_beyond,
        villains=tuple(sorted(reader.villains.items())),
        leaders=tuple(sorted(reader.leaders.items())),
        slow_ms=tuple(sorted(reader.slow.items())),
        partitions=tuple(reader.partitions),
        losses=tuple(reader.losses),
        crashes=tuple(reader.crashes),
        restarts=tuple(reader.restarts),
        expectations=tuple(reader.expectations),
    )
