"""The chain that simulated nodes run: genesis, rules with the real fraud module, and everybody's keys.

The same stakes give the same chain: it is made once in a process and shared by all its runs, for rules
are frozen and a model takes long to load.
Leaves out: settings that a run chooses (`world.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from consensus.bft.contract import BlockRef
from consensus.bft.messages import make_genesis_ref
from consensus.crypto import PrivateKey
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import ValidationModule
from consensus.parameters import CLOCK_WALL, LEADER_ROUND_ROBIN, WHOLE_BP, Parameters
from consensus.vote import Validator, ValidatorSet
from ml.discovery import load_module
from node import modules
from node.simulation.full_nodes import model_life
from node.simulation.full_nodes.remembering import RememberingModule

GENESIS_MS: Final = 1_750_000_000_000  # wall time when a run begins: some day in 2025
CLIENTS: Final = 12
ISSUERS: Final = 6  # the last of them: what they send is not judged
BALANCE: Final = 1 << 44
STAKE: Final = 1_000  # for each unit of a configured stake
# In epochs it is more: what a run earns and delegates must not lift villains to a third.
EPOCHS: Final[dict[str, Any]] = {
    "stake_units_min": 1_000_000,
    "delegation_units_min": 10,
    "unbonding_epochs": 4,
    "unbonding_ms": 400,
    "churn_bp_max": WHOLE_BP,
    "reward_units": 40,
}
STEADY_BP_MIN: Final = 0  # nobody is jailed
RESTLESS_BP_MIN: Final = 2_500  # two of the blocks of a short epoch are enough, one is not


@dataclass(frozen=True, slots=True)
class SimulatedChain:
    """Keys by index: of nodes, of validators, of funded accounts.

    rules: the nodes', whose modules remember what they were asked; checking_rules: the same, without memory.
    """

    rules: Rules
    checking_rules: Rules
    node_keys: tuple[PrivateKey, ...]
    validator_keys: tuple[PrivateKey, ...]
    client_keys: tuple[PrivateKey, ...]
    genesis: BlockRef
    publisher_key: PrivateKey


@dataclass(frozen=True, slots=True)
class ChainSeats:
    """An epoch's validators, and for each index the node that it is (`seats.Seats`)."""

    validators: ValidatorSet
    members: tuple[int, ...]


@lru_cache(maxsize=8)
def make_chain(
    stakes: tuple[int, ...],
    epoch_blocks: int = 0,
    joiners: int = 0,
    *,
    is_restless: bool = False,
    leader_election: str = LEADER_ROUND_ROBIN,
    has_model_life: bool = False,
    clock: str = CLOCK_WALL,
) -> SimulatedChain:
    """The chain of validators with these stakes, and keys for so many more. is_restless: absence is jailed.
    has_model_life: they decide on models, and can pay for it."""
    parameters = Parameters(clock=clock)
    if epoch_blocks:
        share_bp = RESTLESS_BP_MIN if is_restless else STEADY_BP_MIN
        parameters = replace(
            parameters,
            epoch_blocks=epoch_blocks,
            leader_election=leader_election,
            participation_bp_min=share_bp,
            **EPOCHS,
        )
    if has_model_life:
        parameters = replace(
            parameters,
            module_room_bytes=model_life.ROOM_BYTES,
            motion_notice_blocks=model_life.NOTICE_BLOCKS,
        )
    unit = EPOCHS["stake_units_min"] if epoch_blocks else STAKE

    def make_keys(name: str, count: int) -> tuple[PrivateKey, ...]:
        return tuple(PrivateKey.from_seed(f"{name} {index}".encode().ljust(32)) for index in range(count))

    node_keys = make_keys("node", len(stakes) + joiners)
    validator_keys = make_keys("validator", len(stakes) + joiners)
    client_keys = make_keys("client", CLIENTS)
    (publisher_key,) = make_keys("publisher", 1)
    publisher_keys = (publisher_key,) if has_model_life else ()
    # Operators' accounts pay for what they stake, and for the fees of what they decide.
    operator_keys = validator_keys if epoch_blocks or has_model_life else ()
    entries, loaded = _load_modules()
    genesis = Genesis(
        chain_id="simulated",
        timestamp_ms=GENESIS_MS,
        parameters=parameters,
        validators=ValidatorSet(
            tuple(
                Validator(key.public_key, unit * stake)
                for key, stake in zip(validator_keys, stakes, strict=False)
            )
        ),
        accounts=tuple((key.address, BALANCE) for key in (*client_keys, *publisher_keys, *operator_keys)),
        reporters=tuple(key.address for key in client_keys),
        modules=entries,
        issuers=tuple(key.address for key in client_keys[-ISSUERS:]),
    )
    rules = Rules(genesis, tuple(map(RememberingModule, loaded)), model_life.load_remembering)
    header = rules.create_genesis_state().header
    block = make_genesis_ref(header, 0)
    checking = Rules(genesis, loaded, load_module)
    return SimulatedChain(rules, checking, node_keys, validator_keys, client_keys, block, publisher_key)


@lru_cache(maxsize=1)
def _load_modules() -> tuple[tuple[ModuleEntry, ...], tuple[ValidationModule, ...]]:
    entries, artifacts = modules.plan_modules((modules.FRAUD,), refuses=True)
    return entries, tuple(load_module(entry.name, artifacts[entry.digest]) for entry in entries)
