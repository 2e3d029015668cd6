"""Finding a module by name: an entry point, or `package.module:function`.

A distribution offers validation modules in the entry-point group `assay.modules`, each a factory that makes
a module of its artifact's bytes, and policy modules in `assay.policies`, each a factory that makes one of
its settings. Invariant: what comes back has all that its contract asks for; anything else is refused with
the name that was asked for. A module's code runs in this process: install only what you trust.
Leaves out: which modules judge a block (the chain's state says that, by digest).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, cast

from consensus.errors import Rejected
from consensus.ledger.scoring import MODULE_ROW_BYTES_MAX, ValidationModule
from ml.policy import Policy

MODULE_GROUP: Final = "assay.modules"
POLICY_GROUP: Final = "assay.policies"
DIGEST_BYTES: Final = 32


def list_modules() -> tuple[str, ...]:
    """The names of all installed validation modules, sorted."""
    return _list_names(MODULE_GROUP)


def list_policies() -> tuple[str, ...]:
    """The names of all installed policy modules, sorted."""
    return _list_names(POLICY_GROUP)


def _list_names(group: str) -> tuple[str, ...]:
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load_module(name: str, artifact: bytes) -> ValidationModule:
    """The module `name` (entry point, or `package.module:function`) makes of `artifact`.

    Raises Rejected if there is none such, if it cannot be imported, or if what it makes is no module.
    """
    factory = _find_factory(name, MODULE_GROUP)
    module = factory(artifact)
    digest, row_bytes = getattr(module, "digest", None), getattr(module, "row_bytes", None)
    if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
        raise Rejected("its digest is not 32 bytes", field=f"module {name}", mend="see the scoring contract")
    if type(row_bytes) is not int or not 0 <= row_bytes <= MODULE_ROW_BYTES_MAX:
        raise Rejected(f"row_bytes is not 0 to {MODULE_ROW_BYTES_MAX}", field=f"module {name}")
    for method in ("name", "evaluate", "explain"):
        if not hasattr(module, method):
            raise Rejected(f"has no `{method}`", field=f"module {name}", mend="see the scoring contract")
    return cast(ValidationModule, module)


def load_policy(name: str, settings: Mapping[str, Any]) -> Policy:
    """The policy module `name` (entry point, or `package.module:function`) with these settings.

    Raises Rejected if there is none such, if it cannot be imported, if it refuses its settings, or if what it
    makes is no policy.
    """
    policy = _find_factory(name, POLICY_GROUP)(settings)
    if not callable(getattr(policy, "judge", None)):
        raise Rejected("has no `judge`", field=f"policy {name}", mend="see ml/policy.py")
    return cast(Policy, policy)


@cache  # an answer of the disk at one moment: published models must not find another than genesis did
def _find_factory(name: str, group: str) -> Callable[[Any], Any]:
    field = f"{'policy' if group == POLICY_GROUP else 'module'} {name}"
    try:
        if ":" in name:
            path, _, attribute = name.partition(":")
            factory = getattr(import_module(path), attribute)
        else:
            points = sorted(entry_points(group=group, name=name), key=lambda point: point.value)
            if not points:
                raise Rejected(
                    "is not installed",
                    field=field,
                    mend=f"use one of {', '.join(_list_names(group)) or '(none)'}, or package.module:function",
                )
            if len({point.value for point in points}) > 1:
                raise Rejected(
                    f"is offered twice ({points[0].value}, {points[1].value})",
                    field=field,
                    mend="uninstall one, or name it as package.module:function",
                )
            factory = points[0].load()
    except (ImportError, AttributeError, ValueError) as error:
        raise Rejected(
            f"cannot be imported ({error})", field=field, mend="check its name and install it"
        ) from None
    if not callable(factory):
        raise Rejected("is not a function", field=field, mend="name one that makes a module")
    return cast(Callable[[Any], Any], factory)
