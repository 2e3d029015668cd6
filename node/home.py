"""Making homes: the folders of one node or of a whole local network, complete before anything starts.

Invariant: a home is laid under a temporary name and renamed, so that a folder that exists is whole.
Randomness enters as `random_bytes` (the system's source from the command line, a seeded one in tests).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from consensus import codec, crypto, genesis, vote
from consensus.errors import Fault, Rejected
from consensus.ledger import scoring
from consensus.parameters import (
    CLOCK_WALL,
    CLOCK_WORKLOAD,
    DAY_MS,
    LEADER_ONION,
    LEADER_ROUND_ROBIN,
    REPORTING_LISTED,
    WHOLE_BP,
    Parameters,
)
from node import config, modules
from node.admin import write_token
from node.store.disk import RealDisk

PORT_STEP: Final = 10  # node i listens at base + 10 i (peers) and + 1 (HTTP); the rest is for later services
NODES_MAX: Final = 64  # processes on one machine; a certificate still fits a packet of 5 kB
FUNDED_ACCOUNTS: Final = 16  # the second half are issuers; each funds with a nonce window of its own
ACCOUNT_BALANCE: Final = 2**48  # 16 of them are half of the largest supply, 2^53 - 1
STAKE: Final = 1_000_000
OPERATOR_BALANCE: Final = 1_000_000  # of each validator of a new network
# Of a new chain with epochs: what is unbonded can be had back after so many of them, and after so long.
UNBONDING_EPOCHS: Final = 4
UNBONDING_MS: Final = 60_000

_NETWORK_NAME: Final = re.compile(r"node[0-9]{1,2}|(accounts\.key|localnet\.json)(\.new)?")

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What a new local network is to be. model: the fraud module's artifact; None takes what ships."""

    nodes: int
    base_port: int
    block_interval_ms: int
    refuses: bool = True
    clock: str = CLOCK_WORKLOAD
    timestamp_ms: int = 0
    module_names: tuple[str, ...] = ("fraud",)
    stakes: tuple[int, ...] = ()
    model: bytes | None = None
    admin: bool = False  # give every home a token for admin calls
    epoch_blocks: int = 0  # 0: one everlasting epoch
    churn_bp_max: int = WHOLE_BP  # no cap: one of four may come or go at once
    leader_election: str = LEADER_ROUND_ROBIN
    reporting: str = REPORTING_LISTED  # who may report; listed are the funded accounts
    reports_min: int = 1
    module_room_bytes: int = 0  # of an account's row; 0: what the modules need

    def __post_init__(self) -> None:
        codec.check_int(self.nodes, "--nodes", low=1, high=NODES_MAX)
        top = config.PORT_MAX - PORT_STEP * self.nodes
        codec.check_int(self.base_port, "--base-port", low=1, high=top)
        if self.stakes and len(self.stakes) != self.nodes:
            raise Rejected(f"{len(self.stakes)} stakes for {self.nodes} nodes", field="--stakes")


@dataclass(frozen=True, slots=True)
class Network:
    """A laid-out local network: node homes in order, and the keys of its funded accounts."""

    homes: tuple[Path, ...]
    accounts: tuple[crypto.PrivateKey, ...]


def create_network(folder: Path, plan: NetworkPlan, random_bytes: RandomBytes) -> Network:
    """Lay out a new network in `folder`, which must be absent or empty. Raises Rejected, Fault."""
    _check_vacant(folder)
    node_keys = [_make_key(random_bytes) for _ in range(plan.nodes)]
    validator_keys = [_make_key(random_bytes) for _ in range(plan.nodes)]
    accounts = tuple(_make_key(random_bytes) for _ in range(FUNDED_ACCOUNTS))
    stakes = plan.stakes or (STAKE,) * plan.nodes
    entries, artifacts = modules.plan_modules(plan.module_names, refuses=plan.refuses, model=plan.model)
    is_listing = REPORTING_LISTED in plan.reporting.split("+")
    chain = genesis.Genesis(
        chain_id="local-" + random_bytes(4).hex(),
        timestamp_ms=plan.timestamp_ms,
        parameters=replace(
            _plan_parameters(plan.clock, plan.epoch_blocks, plan.churn_bp_max, plan.leader_election),
            reporting=plan.reporting,
            reports_min=plan.reports_min,
            module_room_bytes=plan.module_room_bytes,
        ),
        validators=vote.ValidatorSet(
            tuple(
                vote.Validator(key.public_key, stake)
                for key, stake in zip(validator_keys, stakes, strict=True)
            )
        ),
        accounts=(
            *((key.address, ACCOUNT_BALANCE) for key in accounts),
            # Who operates a validator pays fees: to approve a model, to withdraw, to unjail, to accuse a liar, to
            # vote on reports.
            *((key.address, OPERATOR_BALANCE) for key in validator_keys),
        ),
        reporters=tuple(key.address for key in accounts) if is_listing else (),
        modules=entries,
        # What funds a replay's accounts is no purchase; the other half are people like any other.
        issuers=tuple(key.address for key in accounts[FUNDED_ACCOUNTS // 2 :]),
    )
    names = [f"node{i}" for i in range(plan.nodes)]
    ports = [plan.base_port + PORT_STEP * i for i in range(plan.nodes)]
    peers = [
        config.PeerConfig(name, _make_url(port), "0x" + key.public_key.hex())
        for name, port, key in zip(names, ports, node_keys, strict=True)
    ]
    with _lay_out(folder) as temporary:
        for i, name in enumerate(names):
            settings = config.NodeConfig(
                name=name,
                p2p_port=ports[i],
                api_port=ports[i] + 1,
                peers=tuple(peer for peer in peers if peer.name != name),
                block_interval_ms=plan.block_interval_ms,
            )
            write_home(temporary / name, chain, settings, node_keys[i], validator_keys[i], artifacts)
            if plan.admin:
                write_token(temporary / name, random_bytes)
        keys = "".join("0x" + key.secret.hex() + "\n" for key in accounts)
        config.write_file(temporary / "accounts.key", keys, mode=0o600)
    return open_network(folder)


def create_home(
    folder: Path,
    settings: config.NodeConfig,
    *,
    genesis_path: Path | None,
    chain_id: str | None,
    clock: str,
    refuses: bool,
    model: bytes | None,
    timestamp_ms: int,
    random_bytes: RandomBytes,
    epoch_blocks: int = 0,
    leader_election: str = LEADER_ROUND_ROBIN,
    module_room_bytes: int = 0,
) -> genesis.Genesis:
    """Lay out one node's home: joining the chain of a genesis file, or founding one of its own.

    A founder is the only validator, holds the one funded account (validator.key), may report and issues.
    """
    _check_vacant(folder)
    node_key, validator_key = _make_key(random_bytes), _make_key(random_bytes)
    if genesis_path is not None:
        chain = config.read_genesis_file(genesis_path)
        # A genesis names modules by digest; their artifacts ship with the installation, or come as --model.
        artifacts = modules.find_artifacts(chain, model)
    else:
        entries, artifacts = modules.plan_modules((modules.FRAUD,), refuses=refuses, model=model)
        chain = genesis.Genesis(
            chain_id=chain_id or "chain-" + random_bytes(4).hex(),
            timestamp_ms=timestamp_ms if clock == CLOCK_WALL else 0,
            parameters=replace(
                _plan_parameters(clock, epoch_blocks, leader_election=leader_election),
                module_room_bytes=module_room_bytes,
            ),
            validators=vote.ValidatorSet((vote.Validator(validator_key.public_key, STAKE),)),
            accounts=((validator_key.address, ACCOUNT_BALANCE),),
            reporters=(validator_key.address,),
            modules=entries,
            issuers=(validator_key.address,),  # or nobody could be given anything to spend
        )
    with _lay_out(folder) as temporary:
        write_home(temporary, chain, settings, node_key, validator_key, artifacts)
    return chain


def open_network(folder: Path) -> Network:
    """The network that stands in `folder`. Raises Rejected when it is none or not whole."""
    homes: list[Path] = []
    while (folder / f"node{len(homes)}" / "node.json").is_file():
        homes.append(folder / f"node{len(homes)}")
    path = folder / "accounts.key"
    if not homes or not path.is_file():
        raise Rejected(
            "holds no local network", field=str(folder), mend="choose an empty folder, or use --fresh"
        )
    digests = {config.read_genesis(home).digest for home in homes}
    if len(digests) != 1:
        raise Rejected("its nodes have different genesis files", field=str(folder), mend="use --fresh")
    try:
        accounts = tuple(
            crypto.PrivateKey.from_bytes(bytes.fromhex(line.removeprefix("0x")))
            for line in path.read_text(encoding="utf-8").split()
        )
    except ValueError:
        raise Rejected("is damaged", field=str(path), mend="restore it, or use --fresh") from None
    return Network(tuple(homes), accounts)


def check_stopped(folder: Path) -> None:
    """Raises Rejected while a process runs on a home of this network."""
    disk = RealDisk()
    for home in open_network(folder).homes:
        disk.acquire_lock(home / "lock").release()


def check_removable(folder: Path) -> None:
    """Raises Rejected unless a stopped local network stands in `folder`: a whole one, or what is left of one.

    Of one that is not whole, only if nothing else stands beside it: `--home ~` must not empty somebody's home.
    """
    try:
        open_network(folder)
    except Rejected:
        names = [path.name for path in folder.iterdir()]
        if not all(_NETWORK_NAME.fullmatch(name) for name in names) or not (folder / "node0").is_dir():
            raise
    disk = RealDisk()
    for home in folder.glob("node*/"):
        disk.acquire_lock(home / "lock").release()


def check_same_network(
    network: Network, nodes: int | None, stakes: tuple[int, ...], *, refuses: bool, model: bytes | None
) -> None:
    """Raises Rejected when what was asked for is not what stands there (None and () ask for nothing)."""
    chain = config.read_genesis(network.homes[0])
    if nodes is not None and nodes != len(network.homes):
        raise Rejected(
            f"the network that stands here has {len(network.homes)}",
            field="--nodes",
            mend="leave it out, or add --fresh for a new network",
        )
    if stakes and stakes != tuple(validator.stake for validator in chain.validators.validators):
        raise Rejected(
            "the network that stands here has others", field="--stakes", mend="leave it out, or add --fresh"
        )
    if not refuses and any(m.refuse_score_min != scoring.REFUSE_NEVER for m in chain.modules):
        raise Rejected(
            "the network that stands here refuses: it is in its genesis",
            field="--no-refusals",
            mend="leave it out, or add --fresh",
        )
    if model is not None:
        modules.find_artifacts(chain, model)


def check_same_chain(network: Network, asked: Mapping[str, object]) -> None:
    """Raises Rejected when an option of `assay localnet` asks for another chain than the one that stands here.

    asked: by option; None asks for nothing.
    """
    chain = config.read_genesis(network.homes[0])
    parameters = chain.parameters
    stands: dict[str, object] = {
        "--modules": tuple(module.name for module in chain.modules),
        "--epoch-blocks": parameters.epoch_blocks,
        "--churn-bp": parameters.churn_bp_max,
        "--leader-election": parameters.leader_election,
        "--reporting": parameters.reporting,
        "--reports-min": parameters.reports_min,
        "--module-room": parameters.module_room_bytes,
    }
    for option, value in asked.items():
        found = stands[option]
        if value is not None and value != found:
            words = (", ".join(found) or "none") if isinstance(found, tuple) else found
            raise Rejected(
                f"the network that stands here has {words}", field=option, mend="leave it out, or add --fresh"
            )


def set_local_settings(homes: Sequence[Path], base_port: int | None, block_interval_ms: int | None) -> None:
    """Ports and pacing are each node's own: an existing network may go on with others (None: as they are).

    Peers that are none of these nodes stay as they are. Raises Rejected before anything is written.
    """
    ports: dict[str, int] = {}
    if base_port is not None:
        codec.check_int(base_port, "--base-port", low=1, high=config.PORT_MAX - PORT_STEP * len(homes))
        ports = {home.name: base_port + PORT_STEP * i for i, home in enumerate(homes)}
    changed: list[tuple[Path, config.NodeConfig]] = []
    for home in homes:
        settings = old = config.read_config(home)
        if block_interval_ms is not None:
            settings = replace(settings, block_interval_ms=block_interval_ms)
        if base_port is not None:
            peers = tuple(
                replace(peer, url=_make_url(ports[peer.name])) if peer.name in ports else peer
                for peer in settings.peers
            )
            port = ports[home.name]
            settings = replace(settings, p2p_port=port, api_port=port + 1, peers=peers)
        if settings != old:
            changed.append((home, settings))
    for home, settings in changed:
        config.write_config(home, settings)


def _make_url(port: int) -> str:
    return f"ws://{config.LOOPBACK}:{port}"


def write_home(
    home: Path,
    chain: genesis.Genesis,
    settings: config.NodeConfig,
    node_key: crypto.PrivateKey,
    validator_key: crypto.PrivateKey | None,
    artifacts: dict[bytes, bytes],
) -> None:
    """Write one node's home. `artifacts` maps a module's digest to its artifact."""
    (home / "models").mkdir(parents=True)
    config.write_file(home / "genesis.json", genesis.write_genesis(chain))
    config.write_config(home, settings)
    config.write_key(home / "node.key", node_key)
    if validator_key is not None:
        config.write_key(home / "validator.key", validator_key)
    for digest, artifact in artifacts.items():
        modules.write_artifact(home, digest, artifact)


def _check_vacant(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Rejected("is not an empty folder", field=str(folder), mend="choose another")
    if folder.exists() and folder.samefile(Path.cwd()):  # it is replaced by what is laid out beside it
        raise Rejected("is the folder that you are in", field=str(folder), mend="name one inside it")


@contextmanager
def _lay_out(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well."""
    outer: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        temporary = outer / folder.name
        temporary.mkdir()
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise Fault(f"cannot be laid out ({error.strerror})", field=str(folder)) from None
    finally:
        if outer is not None:
            shutil.rmtree(outer, ignore_errors=True)


def _plan_parameters(
    clock: str,
    epoch_blocks: int,
    churn_bp_max: int = WHOLE_BP,
    leader_election: str = LEADER_ROUND_ROBIN,
) -> Parameters:
    if leader_election == LEADER_ONION and not epoch_blocks:
        raise Rejected(
            "draws leaders anew in every epoch", field="--leader-election", mend="add --epoch-blocks N"
        )
    parameters = Parameters(clock=clock)
    if clock == CLOCK_WORKLOAD:
        # A replay packs a day into a second: what waits a minute of ours is months old in the workload.
        parameters = replace(parameters, timestamp_age_ms_max=62 * DAY_MS, lifetime_ms_max=62 * DAY_MS)
    if epoch_blocks:
        # Made here, a chain is for trying things out: a period is over while one looks on.
        parameters = replace(
            parameters,
            epoch_blocks=epoch_blocks,
            churn_bp_max=churn_bp_max,
            unbonding_epochs=UNBONDING_EPOCHS,
            unbonding_ms=UNBONDING_MS,
            leader_election=leader_election,
        )
    return parameters


def _make_key(random_bytes: RandomBytes) -> crypto.PrivateKey:
    return crypto.PrivateKey.from_seed(random_bytes(32))
