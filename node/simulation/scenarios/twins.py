"""Other people's Twins cases, as scenarios: JSON of the Twins simulator -> the text of a scenario.

The JSON tells, for each round, who leads (both twins of a node, or neither) and which groups of places
hear each other; a place at or above `num_of_nodes` is the twin of the place that much lower; `firewall`
names one-way cuts. Source: Bano et al., "Twins: BFT Systems Made Robust" (2021), asonnino/twins-simulator.

Translation: a round is a view (rounds before the first that is told are the format's genesis, and are
left out); a twin is the second machine of a `double-identity`; a cut is about messages *of* the view, not
about whoever is in it, and ends after `lasting_ms`, since Simplex, unlike a clocked protocol, leaves a view
only by a quorum; after the last round the world heals. So no vote of a round crosses its groups in time,
and what the protocol does about it is the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consensus.errors import Rejected


def translate(case: Mapping[str, Any], nodes: int, twins: int, title: str, lasting_ms: int = 300) -> str:
    """The text of one case. Raises Rejected when it is not of this form."""
    try:
        leaders = {int(number): list(map(int, who)) for number, who in case["round_leaders"].items()}
        groups = {int(number): parts for number, parts in case["round_partitions"].items()}
        firewall = {int(number): rules for number, rules in case.get("firewall", {}).items()}
        first = min(leaders)
        lines = [
            f"# {title}",
            f"validators {nodes}",
            *(f"villain {twin} double-identity" for twin in range(twins)),
        ]
        for number in sorted(leaders):
            view = number - first + 1
            lines.append(f"leader {leaders[number][0] % nodes} in view {view}")
            told = " | ".join(
                " ".join(_name(place, nodes) for place in group) for group in groups.get(number, ())
            )
            if told:
                lines.append(f"partition {told} in view {view} for {lasting_ms}ms")
            for sender, receivers in firewall.get(number, {}).items():
                to = " ".join(str(place) for place in receivers)
                lines.append(f"lose everything from {sender} to {to} in view {view} for {lasting_ms}ms")
        span_ms = (lasting_ms + 100) * len(leaders)
        lines += [f"faults {span_ms}ms", "expect no violation", "expect final >= 1"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Rejected(
            f"is not a Twins case ({error!r})", field="twins", mend="give round_leaders and so on"
        ) from None
    return "\n".join(lines) + "\n"


def translate_all(document: Mapping[str, Any], title: str, lasting_ms: int = 300) -> list[str]:
    """All cases of a file."""
    nodes, twins = document["num_of_nodes"], document["num_of_twins"]
    return [
        translate(case, nodes, twins, f"{title}, case {number}", lasting_ms)
        for number, case in enumerate(document["scenarios"], start=1)
    ]


def _name(place: int, nodes: int) -> str:
    return str(place) if place < nodes else f"{place - nodes}'"
