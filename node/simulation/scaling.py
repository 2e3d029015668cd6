"""What a view costs as validators become more: messages, bytes, and the time to check a certificate.

    python -m node.simulation.scaling 4 10 50 150

Each line is one run of the engine world without faults. Signatures in the world are toys of the true size;
checking is timed apart, with real ECDSA, on one core. Bytes are those of encoded messages (`traffic.py`).
Leaves out: bodies, transactions and the encryption of connections.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consensus import crypto
from consensus.vote import NOTARIZE, Certificate, Subject, check_certificate, encode_certificate
from node.clock import SystemClock
from node.simulation import toys
from node.simulation.config import SimulationConfig
from node.simulation.engine_world import EngineWorld
from node.simulation.traffic import Traffic

RUN_MS: Final = 600  # and until everybody has a final block after that: some ten views
SEED: Final = 1
CHECKS: Final = 5  # the quickest counts
SIGNATURES: Final = 2_000  # at least so many are checked each time: a millisecond is the finest tick
HEADING: Final = (
    "| validators | certificate | checked in | views | final | messages sent | most | kB sent | most |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of n validators with equal stakes. messages, sent_bytes: a node's, a view, on average; `most`: of the
    node that sent most."""

    nodes: int
    certificate_bytes: int
    check_us: int
    views: int
    finalized: int
    messages: float
    messages_most: float
    sent_bytes: float
    sent_bytes_most: float

    def format(self) -> str:
        return (
            f"| {self.nodes} | {self.certificate_bytes:,} B | {self.check_us / 1000:.2f} ms | {self.views} | "
            f"{self.finalized} | {self.messages:.0f} | {self.messages_most:.0f} | "
            f"{self.sent_bytes / 1000:.1f} | {self.sent_bytes_most / 1000:.1f} |"
        )


def make_certificate(nodes: int) -> Certificate:
    """A quorum's real signatures on one subject, by the keys of `toys.make_validators`."""
    subject = Subject(toys.EPOCH, NOTARIZE, 1, crypto.hash_bytes(b"scaling"))
    digest = subject.compute_digest(toys.CHAIN_ID)
    signers = range(toys.make_validators((1,) * nodes).quorum)
    return Certificate(subject, tuple((index, toys.make_key(index).sign(digest)) for index in signers))


def measure_check_us(certificate: Certificate, nodes: int) -> int:
    """How long one core checks a certificate, every signature, in microseconds."""
    validators, clock = toys.make_validators((1,) * nodes), SystemClock()
    times_ms, repeats = [], 1 + SIGNATURES // nodes
    for _ in range(CHECKS):
        started_ms = clock.monotonic_ms()
        for _ in range(repeats):
            check_certificate(certificate, validators, toys.CHAIN_ID, crypto.verify)
        times_ms.append(clock.monotonic_ms() - started_ms)
    return min(times_ms) * 1000 // repeats


def measure(nodes: int) -> Cost:
    """One run. Raises AssertionError when an invariant broke."""
    config = SimulationConfig(
        nodes=nodes,
        loss=0,
        duplication=0,
        slow_share=0,
        crashes=0,
        partitions=0,
        build_failures=0,
        faulty_ms=RUN_MS,
    )
    world = EngineWorld(config, SEED)
    traffic = world.traffic = Traffic()
    violation = world.run()
    assert not violation, violation
    outcome = world.summarize(violation)
    certificate = make_certificate(nodes)
    messages, sent_bytes = traffic.sum_by_sender(traffic.messages), traffic.sum_by_sender(traffic.bytes)
    return Cost(
        nodes,
        len(encode_certificate(certificate)),
        measure_check_us(certificate, nodes),
        outcome.views,
        outcome.finalized,
        sum(messages.values()) / nodes / outcome.views,
        max(messages.values()) / outcome.views,
        sum(sent_bytes.values()) / nodes / outcome.views,
        max(sent_bytes.values()) / outcome.views,
    )


def main(arguments: Sequence[str]) -> int:
    numbers = [int(word) for word in arguments if word.isdecimal()]
    if len(numbers) != len(arguments) or not numbers:
        print("give numbers of validators: e.g. 4 10 50 150", file=sys.stderr)
        return 2
    gc.disable()  # a world is one large cycle, and the process ends with it
    print(HEADING)
    for nodes in numbers:
        print(measure(nodes).format(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
