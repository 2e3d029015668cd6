"""Which policy modules a node runs, and how: from node.json, or from `--policy NAME[=CONFIG]`.

CONFIG is a file with one JSON object, or `key=value,key=value`. `deadline_ms` and `on_failure` among its
keys are the node's; the others are the module's own settings. Invariant: a plan is checked for form when
it is read, and its module makes itself of it (or refuses) before the node serves anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from consensus.codec import check_int, check_str
from consensus.errors import AssayError, Rejected
from ml.discovery import load_policy
from ml.policy import Policy

POLICIES_MAX: Final = 16  # each has a thread, and a batch waits for all of them in turn
DEADLINE_MS_MAX: Final = 10_000  # a client waits as long at least
CONFIG_BYTES_MAX: Final = 1_000_000
SKIP: Final = "skip"
REFUSE: Final = "refuse"
OWN_KEYS: Final = ("deadline_ms", "on_failure")


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """deadline_ms: for a batch of up to 1,000. on_failure: what a module that raises, answers nonsense or is
    late does: "skip" (the node goes on without its word) or "refuse" (nothing new comes in without it)."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    deadline_ms: int = 100
    on_failure: str = SKIP

    def __post_init__(self) -> None:
        check_str(self.name, "policy", length_max=128)
        place = f"policy {self.name}"
        check_int(self.deadline_ms, f"{place}: deadline_ms", low=1, high=DEADLINE_MS_MAX)
        if self.on_failure not in (SKIP, REFUSE):
            raise Rejected(f'must be "{SKIP}" or "{REFUSE}"', field=f"{place}: on_failure")
        if type(self.settings) is not dict:
            raise Rejected("must be an object", field=f"{place}: settings")


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A module and how it is asked. label: its name, numbered where a node runs several of that name."""

    label: str
    policy: Policy
    deadline_ms: int = 100
    on_failure: str = SKIP


def parse_policy(text: str) -> PolicyPlan:
    """A plan from the command line: NAME, NAME=FILE or NAME=key=value,key=value. Raises Rejected."""
    name, _, config = text.partition("=")
    if not name:
        raise Rejected(f'"{text[:80]}" names no module', field="--policy", mend="write NAME or NAME=CONFIG")
    if "=" in config:
        values = _read_pairs(name, config)
    elif config:
        values = _read_file(name, Path(config))
    else:
        values = {}
    if isinstance(deadline := values.get("deadline_ms"), str) and deadline.isdecimal():
        values["deadline_ms"] = int(deadline[:9])
    own = {key: values.pop(key) for key in OWN_KEYS if key in values}
    return PolicyPlan(name, values, **own)


def read_policies(document: Any) -> tuple[PolicyPlan, ...]:
    """The plans in node.json's `policies`. Raises Rejected."""
    if type(document) is not list:
        raise Rejected("must be a list", field="node.json: policies")
    plans = []
    for entry in document:
        if (
            type(entry) is not dict
            or "name" not in entry
            or not set(entry) <= {"name", "settings", *OWN_KEYS}
        ):
            raise Rejected(
                "must have name, and may have settings, deadline_ms and on_failure",
                field="node.json: policies",
            )
        plans.append(PolicyPlan(**entry))
    return tuple(plans)


def load_policies(plans: Sequence[PolicyPlan]) -> tuple[LoadedPolicy, ...]:
    """The modules themselves, in order. Raises Rejected that names the one that cannot be made."""
    if len(plans) > POLICIES_MAX:
        raise Rejected(f"{len(plans)} are named, at most {POLICIES_MAX} run", field="policies")
    loaded: list[LoadedPolicy] = []
    for plan in plans:
        try:
            policy = load_policy(plan.name, dict(plan.settings))
        except AssayError:
            raise
        except Exception as error:  # somebody else's code, and nothing runs yet: say whose
            raise Rejected(
                f"cannot be made ({type(error).__name__}: {error})",
                field=f"policy {plan.name}",
                mend="see its settings",
            ) from error
        same = sum(plan.name == other.name for other in plans[: len(loaded)])
        label = plan.name if not same else f"{plan.name}#{same + 1}"
        loaded.append(LoadedPolicy(label, policy, plan.deadline_ms, plan.on_failure))
    return tuple(loaded)


def _read_pairs(name: str, text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not key or not equals or key in values:
            raise Rejected(
                f'"{pair[:80]}" is not one new key=value',
                field=f"policy {name}",
                mend="write it like count=60,window=1m",
            )
        values[key] = value
    return values


def _read_file(name: str, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(CONFIG_BYTES_MAX))
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or f"it is not JSON: {error}"
        raise Rejected(
            f"cannot be read ({words})", field=str(path), mend=f"--policy {name}=FILE, or {name}=key=value"
        ) from None
    if type(values) is not dict:
        raise Rejected("must be one JSON object", field=str(path))
    return values
