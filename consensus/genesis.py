"""Genesis: what all nodes of a chain agree on before the first block.

Invariant: the genesis digest (tagged SHA-256 of the canonical form) is the parent hash of block 0, so
that every block hash binds the chain id, the parameters, the validators, the accounts, who may report
and which modules judge. The JSON form is for people; the canonical form is what is hashed.
Leaves out: node settings (ports, block interval, mempool policy); those are each node's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from consensus import codec, crypto, vote
from consensus.errors import Rejected
from consensus.ledger import scoring
from consensus.parameters import MODULES_MAX, REPORTING_LISTED, Parameters

GENESIS_TAG: Final = b"assay/genesis/1"
CHAIN_ID_LENGTH_MAX: Final = 64  # fits a line of a log
GENESIS_BYTES_MAX: Final = 256_000_000  # two million funded accounts
GENESIS_ACCOUNTS_MAX: Final = 2_000_000
WEIGHT_MAX: Final = 10_000  # weights are parts of ten thousand, or any smaller numbers


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """A consensus module of the chain: entry-point name, digest of what it computes, thresholds.

    weight: in a weighted score; with 0 it only watches: it keeps its rows, and what it says does not count.
    """

    name: str
    digest: bytes
    flag_score_min: int
    refuse_score_min: int
    weight: int = 1

    def __post_init__(self) -> None:
        codec.check_str(self.name, "modules.name", length_max=64)
        codec.check_bytes(self.digest, "modules.digest", length=32)
        codec.check_int(self.flag_score_min, "modules.flag_score_min", high=scoring.REFUSE_NEVER)
        codec.check_int(self.refuse_score_min, "modules.refuse_score_min", high=scoring.REFUSE_NEVER)
        codec.check_int(self.weight, "modules.weight", high=WEIGHT_MAX)

    @property
    def thresholds(self) -> scoring.Thresholds:
        return scoring.Thresholds(self.flag_score_min, self.refuse_score_min)


@dataclass(frozen=True, slots=True)
class Genesis:
    """validators: at least one with stake. accounts: (address, balance), each address once.

    reporters: addresses whose fraud reports count. modules: those that judge block 1 (parameters.combination).
    issuers: addresses that bring money into circulation (a faucet, a bank's deposits): what they send is
    nobody's purchase and is not judged, nor seen by a module. None by default.
    """

    chain_id: str
    timestamp_ms: int
    parameters: Parameters
    validators: vote.ValidatorSet
    accounts: tuple[tuple[bytes, int], ...]
    reporters: tuple[bytes, ...]
    modules: tuple[ModuleEntry, ...]
    issuers: tuple[bytes, ...] = ()
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        codec.check_str(self.chain_id, "chain_id", length_max=CHAIN_ID_LENGTH_MAX)
        codec.check_int(self.timestamp_ms, "timestamp_ms", high=codec.TIME_MS_MAX)
        if len(self.accounts) > GENESIS_ACCOUNTS_MAX:
            raise Rejected(f"more than {GENESIS_ACCOUNTS_MAX}", field="accounts")
        for address, balance in self.accounts:
            codec.check_bytes(address, "accounts.address", length=crypto.ADDRESS_BYTES)
            codec.check_int(balance, "accounts.balance")
        if len({address for address, _ in self.accounts}) != len(self.accounts):
            raise Rejected("an address is listed twice", field="accounts.address")
        supply = sum(balance for _, balance in self.accounts) + self.validators.total
        if supply > codec.MONEY_MAX:
            raise Rejected(
                f"balances and stakes add up to {supply}, at most {codec.MONEY_MAX} (2^53 - 1) allowed",
                field="accounts.balance",
            )
        stakes = [validator.stake for validator in self.validators.validators]
        if self.parameters.epoch_blocks and min(stakes) < self.parameters.stake_units_min:
            raise Rejected(
                f"{min(stakes)}, on a chain with epochs at least {self.parameters.stake_units_min}",
                field="validators.stake",
                mend="raise it, or lower parameters.stake_units_min",
            )
        if self.parameters.epoch_blocks and len(stakes) > self.parameters.validators_max:
            raise Rejected(
                f"{len(stakes)}, at most {self.parameters.validators_max} may validate",
                field="validators",
                mend="raise parameters.validators_max",
            )
        for name, addresses in (("reporters", self.reporters), ("issuers", self.issuers)):
            for address in addresses:
                codec.check_bytes(address, name, length=crypto.ADDRESS_BYTES)
            if len(set(addresses)) != len(addresses):
                raise Rejected("an address is listed twice", field=name)
        self._check_reporting()
        if len(self.modules) > MODULES_MAX:
            raise Rejected(f"more than {MODULES_MAX}", field="modules")
        if len({module.digest for module in self.modules}) != len(self.modules):
            raise Rejected("a module is listed twice", field="modules.digest")
        object.__setattr__(self, "digest", crypto.hash_bytes(GENESIS_TAG + codec.encode(_pack(self))))

    def _check_reporting(self) -> None:
        is_listing = REPORTING_LISTED in self.parameters.reporting.split("+")
        if self.reporters and not is_listing:
            raise Rejected(
                f'are listed, and parameters.reporting is "{self.parameters.reporting}"',
                field="reporters",
                mend=f"leave them out, or add {REPORTING_LISTED}",
            )
        is_all = self.parameters.reporting == REPORTING_LISTED
        if is_all and 0 < len(self.reporters) < self.parameters.reports_min:
            raise Rejected(
                f"{len(self.reporters)} are listed, {self.parameters.reports_min} must agree",
                field="reporters",
                mend="list more, or lower parameters.reports_min",
            )


def _pack(genesis: Genesis) -> tuple[Any, ...]:
    parameters = genesis.parameters
    return (
        genesis.chain_id,
        genesis.timestamp_ms,
        tuple((entry.name, getattr(parameters, entry.name)) for entry in fields(parameters)),
        tuple((validator.public_key, validator.stake) for validator in genesis.validators.validators),
        genesis.accounts,
        genesis.reporters,
        tuple((m.name, m.digest, m.flag_score_min, m.refuse_score_min, m.weight) for m in genesis.modules),
        genesis.issuers,
    )


def write_genesis(genesis: Genesis) -> str:
    """The JSON form: byte strings as 0x hex, one key per line, in the order of the fields."""
    parameters = genesis.parameters
    document = {
        "chain_id": genesis.chain_id,
        "timestamp_ms": genesis.timestamp_ms,
        "parameters": {entry.name: getattr(parameters, entry.name) for entry in fields(parameters)},
        "validators": [
            {"public_key": "0x" + v.public_key.hex(), "stake": v.stake} for v in genesis.validators.validators
        ],
        "accounts": [{"address": "0x" + a.hex(), "balance": balance} for a, balance in genesis.accounts],
        "reporters": ["0x" + reporter.hex() for reporter in genesis.reporters],
        "modules": [
            {
                "name": m.name,
                "digest": "0x" + m.digest.hex(),
                "flag_score_min": m.flag_score_min,
                "refuse_score_min": m.refuse_score_min,
                "weight": m.weight,
            }
            for m in genesis.modules
        ],
        "issuers": ["0x" + issuer.hex() for issuer in genesis.issuers],
    }
    return json.dumps(document, indent=1) + "\n"


def read_genesis(text: str) -> Genesis:
    """The genesis that a JSON text describes. Raises Rejected naming the field and the mend."""
    if len(text) > GENESIS_BYTES_MAX:
        raise Rejected(f"more than {GENESIS_BYTES_MAX} bytes", field="genesis", code="size")
    try:
        document = json.loads(
            text,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            object_pairs_hook=_read_pairs,
        )
    except (ValueError, RecursionError) as error:
        raise Rejected(f"is not JSON ({error})", field="genesis", mend="restore the file") from None
    root = _read_object(document, "genesis", {"parameters", "reporters", "modules", "issuers"})
    parameters = _read_object(root.get("parameters", {}), "parameters", None)
    known = {entry.name for entry in fields(Parameters)}
    for name in parameters:
        if name not in known:
            raise Rejected("is not a parameter", field=f"parameters.{name}", mend="remove it")
    stakes = []
    for entry in _read_list(root["validators"], "validators"):
        item = _read_object(entry, "validators", set(), ("public_key", "stake"))
        stake = codec.check_int(item["stake"], "validators.stake", low=1)
        stakes.append(vote.Validator(_read_hex(item["public_key"], "validators.public_key"), stake))
    accounts = []
    for entry in _read_list(root["accounts"], "accounts"):
        item = _read_object(entry, "accounts", set(), ("address", "balance"))
        accounts.append(
            (
                _read_hex(item["address"], "accounts.address"),
                codec.check_int(item["balance"], "accounts.balance"),
            )
        )
    modules = []
    for entry in _read_list(root.get("modules", []), "modules"):
        names = ("name", "digest", "flag_score_min", "refuse_score_min", "weight")
        item = _read_object(entry, "modules", {"weight"}, names)
        modules.append(
            ModuleEntry(
                item["name"],
                _read_hex(item["digest"], "modules.digest"),
                item["flag_score_min"],
                item["refuse_score_min"],
                item.get("weight", 1),
            )
        )
    return Genesis(
        root["chain_id"],
        root["timestamp_ms"],
        Parameters(**parameters),
        vote.ValidatorSet(tuple(stakes)),
        tuple(accounts),
        _read_addresses(root, "reporters"),
        tuple(modules),
        _read_addresses(root, "issuers"),
    )


def _read_addresses(root: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    return tuple(_read_hex(entry, name) for entry in _read_list(root.get(name, []), name))


_ROOT_FIELDS: Final = (
    "chain_id",
    "timestamp_ms",
    "parameters",
    "validators",
    "accounts",
    "reporters",
    "modules",
    "issuers",
)


def _read_object(
    value: Any, what: str, optional: set[str] | None, names: tuple[str, ...] = _ROOT_FIELDS
) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise Rejected("must be an object", field=what)
    if optional is not None:
        for name in names:
            if name not in value and name not in optional:
                raise Rejected("is missing", field=f"{what}.{name}", mend="add it")
        for name in value:
            if name not in names:
                raise Rejected("is not a known field", field=f"{what}.{name}", mend="remove it")
    return value


def _read_list(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise Rejected("must be a list", field=what)
    return value


def _read_hex(value: Any, what: str) -> bytes:
    try:
        data = bytes.fromhex(value[2:]) if type(value) is str else b""
    except ValueError:
        data = b""
    if value != "0x" + data.hex():  # one spelling: no blanks, no capitals
        raise Rejected("must be lower-case hex with 0x", field=what)
    return data


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name is listed twice in one object")
    return names


def _refuse_number(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")
