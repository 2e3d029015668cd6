"""What `assay module` does: list what is installed, and hold a module against its contract.

One line a check, with the reason of a failure; exit code 1 if one failed, and then the line that repeats it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from consensus.codec import check_int
from consensus.errors import AssayError, Rejected
from ml.discovery import MODULE_GROUP, POLICY_GROUP, list_modules, list_policies
from ml.model import MODEL_BYTES_MAX
from node.conformance.module_checks import MODULE_CHECKS, Subject
from node.conformance.playing import NonConforming
from node.conformance.policy_checks import POLICY_CHECKS, PolicySubject
from node.policies.plan import parse_policy

CONSENSUS: Final = "consensus"
POLICY: Final = "policy"

Sub = TypeVar("Sub")


@dataclass(frozen=True, slots=True)
class Result:
    check: str
    ok: bool
    words: str


def list_installed(args: argparse.Namespace) -> int:
    """Names, kinds and where their code is."""
    rows = [
        {"name": point.name, "kind": kind, "code": point.value}
        for kind, group in ((CONSENSUS, MODULE_GROUP), (POLICY, POLICY_GROUP))
        for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value))
    ]
    if args.json:
        print(json.dumps({"modules": rows}))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"  {row['name']:{width}}  {row['kind']:9}  {row['code']}")
    return 0


def check_module(args: argparse.Namespace) -> int:
    """Exit code 0 only if every check held. Raises Rejected when there is no such module."""
    check_int(args.seed, "--seed", high=2**63 - 2)
    if _find_kind(args.name, is_policy=args.policy) == POLICY:
        return _check_policy(args)
    if args.config is not None:
        raise Rejected("is for policy modules", field="--config", mend="give --artifact FILE")
    subject = Subject(args.name, _read_artifact(args.name, args.artifact), args.seed)
    digest = subject.load().digest  # of a module that cannot even be loaded there is nothing to check
    results = run_checks(MODULE_CHECKS, subject)
    return _tell(args, CONSENSUS, {"digest": "0x" + digest.hex()}, results)


def _check_policy(args: argparse.Namespace) -> int:
    if args.artifact is not None:
        raise Rejected("is for consensus modules", field="--artifact", mend="give --config CONFIG")
    plan = parse_policy(args.name if args.config is None else f"{args.name}={args.config}")
    subject = PolicySubject(plan.name, plan.settings, plan.deadline_ms, args.seed)
    subject.load()
    return _tell(args, POLICY, {"deadline_ms": plan.deadline_ms}, run_checks(POLICY_CHECKS, subject))


def run_checks(checks: Iterable[tuple[str, Callable[[Sub], str]]], subject: Sub) -> list[Result]:
    """Every check, also after one that failed. What a module raises fails its check, not the kit."""
    results = []
    for name, check in checks:
        try:
            results.append(Result(name, True, check(subject)))
        except NonConforming as error:
            results.append(Result(name, False, str(error)))
        except AssayError as error:
            results.append(Result(name, False, f"it is refused: {error}"))
        except Exception as error:
            results.append(Result(name, False, f"it raises {type(error).__name__}: {error}"))
    return results


def _tell(args: argparse.Namespace, kind: str, facts: dict[str, Any], results: list[Result]) -> int:
    is_good = all(result.ok for result in results)
    if args.json:
        document = {"module": args.name, "kind": kind, "seed": args.seed, **facts, "ok": is_good}
        print(json.dumps(document | {"checks": [asdict(result) for result in results]}))
        return 0 if is_good else 1
    width = max(len(result.check) for result in results)
    for result in results:
        print(f"  {'pass' if result.ok else 'FAIL'}  {result.check:{width}}  {result.words}")
    if is_good:
        print(f"  {args.name} keeps the contract of {kind} modules, as far as {len(results)} checks tell")
    else:
        again = f"assay module check {args.name} --seed {args.seed}"
        again += "".join(
            f" --{key} {value}" for key in ("artifact", "config") if (value := getattr(args, key)) is not None
        )
        print(f"  it does not conform; again with: {again}{' --policy' if args.policy else ''}")
    return 0 if is_good else 1


def _find_kind(name: str, *, is_policy: bool) -> str:
    if is_policy or (name in list_policies() and name not in list_modules()):
        return POLICY
    return CONSENSUS


def _read_artifact(name: str, path: str | None) -> bytes:
    """The file's bytes, or what ships for the module; b"" for one that needs none."""
    if path is None:
        shipped = files("ml") / "models" / f"{name}.model"
        return shipped.read_bytes() if ":" not in name and shipped.is_file() else b""
    try:
        with Path(path).open("rb") as file:
            artifact = file.read(16 * MODEL_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror})", field=path, mend="check the path") from None
    if len(artifact) > 16 * MODEL_BYTES_MAX:  # what a node loads is far smaller
        raise Rejected(f"is larger than {16 * MODEL_BYTES_MAX} bytes", field=path)
    return artifact
