"""A feature's value as a person says it, with the account's own numbers.

Invariant: every kind of the vocabulary has words (a test asks them all). Windows and spans come from the
definitions, so the words of another model speak of its windows. Leaves out: languages but English.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ml.definitions import BYTE_MAX, Definitions, Feature
from ml.features import Observation

# Of features that count: how the words put a value ("no", 1 or more); {0} is the count, {1} the first
# and {2} the last age of a window, {3} the definitions' days of the ring, {4} their span in minutes.
_COUNT_WORDS: Final[Mapping[str, str]] = {
    "sent_lately": "the sender sent {0} others in the same {4}",
    "sent_count": "the sender's earlier payments weigh as much as {0} of today",
    "run_reports": "the receiver has {0} unexplained reports since its last clean day",
    "reports": "the receiver has {0} unexplained reports on days {1} to {2} days ago",
    "clean": "the receiver had {0} clean transactions on days {1} to {2} days ago",
    "clean_since": "the receiver had {0} clean transactions since its newest report",
    "clean_between": "the receiver had {0} clean transactions between its reports",
}
_REPORTS_OF_ALL_DAYS: Final = "the receiver has {0} unexplained reports within {3} days"
_AGE_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "run_age_days": ("the receiver's reports since its last clean day began {} days ago", "no such reports"),
    "clean_age_days": ("the receiver's last clean day is {} days old", "the receiver has no clean day yet"),
    "newest_report_age_days": (
        "the receiver's newest reported day is {} days old",
        "no report on the receiver",
    ),
    "oldest_report_age_days": (
        "the receiver's oldest reported day is {} days old",
        "no report on the receiver",
    ),
}
_NUMBERS: Final = {
    5: "five minutes",
    10: "ten minutes",
    15: "quarter of an hour",
    30: "half hour",
    60: "hour",
}


def measure_feature(feature: Feature, byte: int, amount: int, ratio_64: int) -> int:
    """A feature's value in its own unit: amount in units, the ratio in hundredths, else the byte."""
    if feature.kind == "amount":
        return amount
    return ratio_64 * 100 // 64 if feature.kind == "amount_over_mean" else byte


def describe_feature(
    definitions: Definitions, feature: Feature, byte: int, amount: int, seen: Observation, index: int
) -> str:
    """What `feature` says of transaction `index` of an observed block."""
    rules, mean_16 = definitions.rules, int(seen.mean_16[index])
    match feature.kind:
        case "amount":
            return f"the amount is {amount:,}"
        case "amount_over_mean":
            if mean_16 == 0:
                return "the sender has no earlier amounts to compare with"
            tenths = int(seen.ratio_64[index]) * 10 // 64
            return f"the amount is {tenths // 10}.{tenths % 10} times the sender's mean ({mean_16 // 16:,})"
        case "evidence":  # the byte counts quarters of a mean
            limit = f"{rules.evidence_ratio_64 / 64:.2f}".rstrip("0").rstrip(".")
            days = feature.arguments[0]
            return f"amounts beyond {limit} means came to {_or_more(byte, 4)} means in the sender's last {days} days"
        case kind if kind in _AGE_WORDS:
            some, none = _AGE_WORDS[kind]
            return none if byte == BYTE_MAX else some.format(byte)
        case kind:
            words = _COUNT_WORDS[kind]
            first, end = feature.arguments or (0, 0)
            if kind == "reports" and (first, end) == (0, rules.ring_days):
                words = _REPORTS_OF_ALL_DAYS
            count = _or_more(byte, 1) if byte else "no"
            return words.format(count, first, end - 1, rules.ring_days, _NUMBERS[rules.lately_ms // 60_000])


def _or_more(byte: int, parts: int) -> str:
    whole, rest = divmod(byte, parts)
    text = f"{whole}" if parts == 1 else f"{whole}.{rest * 100 // parts:02d}"
    return f"{text} or more" if byte == BYTE_MAX else text
