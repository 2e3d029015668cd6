"""What a scenario may expect, and whether it came so.

    expect no violation                  expect violation agreement
    expect final >= 5                    expect view 3 notarized | nullified | final | skipped
    expect view 3 not final              expect no view nullified after 2
    expect nullify votes in view 3 = 4   (of honest validators)
    expect evidence against 3            expect no evidence
    expect refused messages from 3       expect no refused messages
    expect views <= 20                   expect crashes = 4
    expect rounds <= 70                  expect resumed within 8 views
    expect epochs >= 3                   expect tails >= 1
    expect no vote of 2 after 1s         expect no vote of 2 between 1s and 2s
    expect finalizations of view 3 told >= 8              expect node 2 at final >= 5
    expect 3 penalised by 0 1            expect nobody penalised       expect node 2 observed     (whole nodes)
    expect 4 seated                      expect 3 slashed              expect nobody slashed      (with epochs)
    expect transfers final everywhere >= 10               expect all level               expect roots equal

Views are the first epoch's; `epochs`: how many began; `tails`: how often a node met a final one.
`final` counts blocks of the longest chain; `rounds`: views that any honest engine kept in memory at once;
`skipped`: no block of that view is on the final chain; `told`: how often honest nodes said such a message,
to one or to all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consensus.bft.contract import BlockRef
from node.simulation.scenarios.plan import MESSAGE_WORDS


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run came to, as expectations see it. votes_ms: when each node signed new votes."""

    violation: str
    chain: tuple[BlockRef, ...]
    notarized: frozenset[int]
    nullified: frozenset[int]
    accused: frozenset[int]
    refused: frozenset[int]
    views: int
    crashes: int
    rounds_max: int
    resumed_views: int  # from healing to the first view that is final on all nodes
    heights: dict[int, int] = field(default_factory=dict)
    votes: dict[tuple[int, str], int] = field(default_factory=dict)  # of honest nodes: view, kind -> how many
    votes_ms: dict[int, list[int]] = field(default_factory=dict)
    epochs: int = 1
    tails: int = 0
    told: dict[tuple[int, str], int] = field(
        default_factory=dict
    )  # by honest nodes: view, message -> how often
    # Of whole nodes alone. roots: of the state that each honest node ended with; observed: who came up and
    # only observed; penalised: (by, whom), by honest nodes; transfers: final on every honest node.
    roots: dict[int, bytes] = field(default_factory=dict)
    observed: frozenset[int] = frozenset()
    penalised: frozenset[tuple[int, int]] = frozenset()
    transfers: int = 0
    seated: frozenset[int] = frozenset()  # who validated in some epoch
    slashed: frozenset[int] = frozenset()


def _compare(value: int, sign: str, bound: int) -> bool:
    return {"=": value == bound, ">=": value >= bound, "<=": value <= bound}[sign]


def _is_view(facts: Facts, view: int, state: str) -> bool:
    on_chain = {block.view for block in facts.chain if block.epoch == 0}
    tip = facts.chain[-1]
    states = {
        "notarized": view in facts.notarized,
        "nullified": view in facts.nullified,
        "final": view in on_chain,
        "skipped": view not in on_chain and (0, view) < (tip.epoch, tip.view),
    }
    return states[state]


def _check_view(match: re.Match[str], facts: Facts) -> str:
    holds = _is_view(facts, int(match["view"]), match["state"])
    if holds == (match["negation"] is None):
        return ""
    return f"view {match['view']} is {'' if holds else 'not '}{match['state']}"


def _check_number(match: re.Match[str], facts: Facts) -> str:
    values = {
        "final": len(facts.chain) - 1,
        "views": facts.views,
        "crashes": facts.crashes,
        "rounds": facts.rounds_max,
        "epochs": facts.epochs,
        "tails": facts.tails,
        "transfers final everywhere": facts.transfers,
    }
    value = values[match["name"]]
    return "" if _compare(value, match["sign"], int(match["bound"])) else f"{match['name']} is {value}"


def _check_node(match: re.Match[str], facts: Facts) -> str:
    height = facts.heights.get(int(match["node"]), 0)
    return "" if _compare(height, match["sign"], int(match["bound"])) else f"it is at {height}"


def _check_violation(match: re.Match[str], facts: Facts) -> str:
    if facts.violation and facts.violation.startswith(match["name"] or ""):
        return ""
    return facts.violation or "every invariant held"


def _check_evidence(match: re.Match[str], facts: Facts) -> str:
    wanted = frozenset(map(int, match["nodes"].split()))
    return "" if facts.accused == wanted else f"evidence was against {sorted(facts.accused) or 'nobody'}"


def _check_refused(match: re.Match[str], facts: Facts) -> str:
    wanted = frozenset(map(int, match["nodes"].split()))
    return "" if facts.refused == wanted else f"refused were those of {sorted(facts.refused) or 'nobody'}"


def _check_resumed(match: re.Match[str], facts: Facts) -> str:
    bound = int(match["views"])
    return "" if facts.resumed_views <= bound else f"it took {facts.resumed_views} views"


def _check_silence(match: re.Match[str], facts: Facts) -> str:
    words = match.groupdict()
    begin_ms = _read_ms(words["begin"])
    end_ms = _read_ms(words["end"]) if words.get("end") else None
    voted = [
        at_ms
        for at_ms in facts.votes_ms.get(int(match["node"]), ())
        if begin_ms < at_ms and (end_ms is None or at_ms < end_ms)
    ]
    return f"it voted at {voted[-1]} ms" if voted else ""


def _read_ms(text: str) -> int:
    number = text.rstrip("ms")
    return int(number) * (1 if text.endswith("ms") else 1000)


def _check_told(match: re.Match[str], facts: Facts) -> str:
    names = MESSAGE_WORDS[match["name"]]
    count = sum(facts.told.get((int(match["view"]), name), 0) for name in names)
    return "" if _compare(count, match["sign"], int(match["bound"])) else f"they were told {count} times"


def _check_no_nullified(match: re.Match[str], facts: Facts) -> str:
    lost = sorted(view for view in facts.nullified if view > int(match["view"]))
    return f"nullified are {lost}" if lost else ""


def _check_votes(match: re.Match[str], facts: Facts) -> str:
    count = facts.votes.get((int(match["view"]), match["kind"]), 0)
    return "" if _compare(count, match["sign"], int(match["bound"])) else f"there are {count}"


def _check_penalised(match: re.Match[str], facts: Facts) -> str:
    whom = int(match["whom"])
    wanted = set(map(int, match["nodes"].split()))
    found = {by for by, other in facts.penalised if other == whom}
    return "" if wanted <= found else f"it was penalised by {sorted(found) or 'nobody'}"


def _check_observed(match: re.Match[str], facts: Facts) -> str:
    return "" if int(match["node"]) in facts.observed else f"observed have {sorted(facts.observed) or 'none'}"


def _check_seated(match: re.Match[str], facts: Facts) -> str:
    return "" if int(match["node"]) in facts.seated else f"only {sorted(facts.seated)} ever validated"


def _check_slashed(match: re.Match[str], facts: Facts) -> str:
    wanted = frozenset({int(match["node"])})
    return "" if facts.slashed == wanted else f"slashed are {sorted(facts.slashed) or 'none'}"


def _check_level(_: re.Match[str], facts: Facts) -> str:
    return "" if len(set(facts.heights.values())) == 1 else f"they stand at {facts.heights}"


def _check_roots(_: re.Match[str], facts: Facts) -> str:
    if facts.roots and len(set(facts.roots.values())) == 1:
        return ""
    return f"they are { ({node: root.hex()[:8] for node, root in facts.roots.items()}) }"


def _check_none(found: Callable[[Facts], object], said: str) -> Callable[[re.Match[str], Facts], str]:
    return lambda _, facts: f"{said} {found(facts)}" if found(facts) else ""


_NODES: Final = r"(?P<nodes>\d+(?: \d+)*)"
_TIME: Final = r"\d+(?:ms|s)"
_NUMBER: Final = r"(?P<sign>>=|<=|=) (?P<bound>\d+)"
_FORMS: Final[tuple[tuple[str, Callable[[re.Match[str], Facts], str]], ...]] = (
    ("no violation", _check_none(lambda facts: facts.violation, "violated:")),
    ("violation(?: (?P<name>.+))?", _check_violation),
    ("no evidence", _check_none(lambda facts: sorted(facts.accused), "there is some against")),
    (f"evidence against {_NODES}", _check_evidence),
    ("no refused messages", _check_none(lambda facts: sorted(facts.refused), "there are some from")),
    (f"refused messages from {_NODES}", _check_refused),
    (r"no view nullified after (?P<view>\d+)", _check_no_nullified),
    (rf"(?P<kind>notarize|nullify|finalize) votes in view (?P<view>\d+) {_NUMBER}", _check_votes),
    (r"view (?P<view>\d+) (?P<negation>not )?(?P<state>notarized|nullified|final|skipped)", _check_view),
    (
        f"(?P<name>final|views|crashes|rounds|epochs|tails|transfers final everywhere) {_NUMBER}",
        _check_number,
    ),
    (rf"node (?P<node>\d+) at final {_NUMBER}", _check_node),
    (rf"(?P<whom>\d+) penalised by {_NODES}", _check_penalised),
    ("nobody penalised", _check_none(lambda facts: sorted(facts.penalised), "these were (by, whom):")),
    (r"node (?P<node>\d+) observed", _check_observed),
    (r"(?P<node>\d+) seated", _check_seated),
    (r"(?P<node>\d+) slashed", _check_slashed),
    ("nobody slashed", _check_none(lambda facts: sorted(facts.slashed), "these were:")),
    ("all level", _check_level),
    ("roots equal", _check_roots),
    (r"resumed within (?P<views>\d+) views", _check_resumed),
    (rf"no vote of (?P<node>\d+) after (?P<begin>{_TIME})", _check_silence),
    (rf"no vote of (?P<node>\d+) between (?P<begin>{_TIME}) and (?P<end>{_TIME})", _check_silence),
    (rf"(?P<name>{'|'.join(MESSAGE_WORDS)}) of view (?P<view>\d+) told {_NUMBER}", _check_told),
)


def check_words(words: tuple[str, ...]) -> None:
    """Raises ValueError when nobody knows what these words expect."""
    if _find(words) is None:
        raise ValueError(f'"{" ".join(words)}" is nothing that can be expected (see expectations.py)')


def judge_words(words: tuple[str, ...], facts: Facts) -> str:
    """ "" when it came so; otherwise what came instead."""
    found = _find(words)
    assert found is not None
    match, check = found
    return check(match, facts)


def _find(words: tuple[str, ...]) -> tuple[re.Match[str], Callable[[re.Match[str], Facts], str]] | None:
    for pattern, check in _FORMS:
        match = re.fullmatch(pattern, " ".join(words))
        if match is not None:
            return match, check
    return None
