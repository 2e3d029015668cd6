"""Making homes: whole or not at all, never over something, and reproducible from their randomness."""

from __future__ import annotations

import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.errors import Fault, Rejected
from consensus.genesis import Genesis
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD
from node import config, home
from node.config import NodeConfig
from node.home import NetworkPlan

PLAN = NetworkPlan(nodes=3, base_port=20_000, block_interval_ms=250, module_names=())


def create(folder: Path, plan: NetworkPlan = PLAN, seed: int = 1) -> home.Network:
    return home.create_network(folder, plan, random.Random(seed).randbytes)


def test_a_network_has_one_genesis_distinct_keys_and_ports_and_peers_that_name_each_other(
    tmp_path: Path,
) -> None:
    network = create(tmp_path / "net")
    assert [path.name for path in network.homes] == ["node0", "node1", "node2"]
    assert len({config.read_genesis(path).digest for path in network.homes}) == 1
    settings = [config.read_config(path) for path in network.homes]
    ports = [port for entry in settings for port in (entry.p2p_port, entry.api_port)]
    assert len(set(ports)) == 6
    for path, entry in zip(network.homes, settings, strict=True):
        assert {peer.name for peer in entry.peers} == {f"node{i}" for i in range(3)} - {entry.name}
        assert entry.block_interval_ms == 250
        for name in ("node.key", "validator.key"):
            assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
    genesis = config.read_genesis(network.homes[0])
    keys = {config.read_key(path / "validator.key").public_key for path in network.homes}
    assert {validator.public_key for validator in genesis.validators.validators} == keys
    operators = {config.read_key(path / "validator.key").address for path in network.homes}
    funded = {key.address for key in network.accounts}
    assert {address for address, _ in genesis.accounts} == funded | operators


def test_the_same_randomness_makes_the_same_network_and_opening_it_gives_it_again(tmp_path: Path) -> None:
    first, second = create(tmp_path / "a"), create(tmp_path / "b")
    read = config.read_genesis
    assert read(first.homes[0]).digest == read(second.homes[0]).digest
    assert read(create(tmp_path / "c", seed=2).homes[0]).digest != read(first.homes[0]).digest
    opened = home.open_network(tmp_path / "a")
    assert opened.homes == first.homes
    assert [key.secret for key in opened.accounts] == [key.secret for key in first.accounts]


def test_nothing_is_laid_over_something_and_nothing_half_made_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = tmp_path / "net"
    occupied.mkdir()
    (occupied / "letter").write_text("dear")
    with pytest.raises(Rejected, match="not an empty folder"):
        create(occupied)
    with pytest.raises(Rejected, match="not an empty folder"):
        create(occupied / "letter")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home, "write_home", fail)
    with pytest.raises(Fault, match="No space left"):
        create(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_stands_beside_a_new_network_is_left_alone_whatever_its_name(tmp_path: Path) -> None:
    other = create(tmp_path / "net.new", seed=2)
    create(tmp_path / "net")
    assert home.open_network(tmp_path / "net.new") == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net.new"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"nodes": 65}, "--nodes"),
        ({"base_port": 0}, "--base-port"),
        ({"base_port": 65_530}, "--base-port"),
        ({"stakes": (1, 2)}, "2 stakes for 3 nodes"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_name_of_its_option(
    changes: dict[str, object], words: str
) -> None:
    fields = {"nodes": 3, "base_port": 20_000, "block_interval_ms": 250, **changes}
    with pytest.raises(Rejected, match=words):
        NetworkPlan(**fields)  # type: ignore[arg-type]


def test_a_network_with_no_stake_is_refused(tmp_path: Path) -> None:
    plan = NetworkPlan(3, 20_000, 250, module_names=(), stakes=(0, 0, 0))
    with pytest.raises(Rejected, match="stake"):
        create(tmp_path / "net", plan)
    assert not (tmp_path / "net").exists()


def test_a_folder_that_is_no_network_or_a_torn_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="holds no local network"):
        home.open_network(tmp_path)
    network = create(tmp_path / "net")
    other = create(tmp_path / "other", seed=2)
    (network.homes[1] / "genesis.json").write_bytes((other.homes[1] / "genesis.json").read_bytes())
    with pytest.raises(Rejected, match="different genesis"):
        home.open_network(tmp_path / "net")
    (tmp_path / "other" / "accounts.key").write_text("0xnothex\n")
    with pytest.raises(Rejected, match="damaged"):
        home.open_network(tmp_path / "other")


def test_a_founder_is_its_own_validator_and_others_join_by_its_genesis(tmp_path: Path) -> None:
    settings = NodeConfig("ann", 1, 2)

    def make(name: str, genesis_path: Path | None) -> Genesis:
        return home.create_home(
            tmp_path / name,
            settings,
            genesis_path=genesis_path,
            chain_id="own-chain" if genesis_path is None else None,
            clock=CLOCK_WALL,
            refuses=True,
            model=None,
            timestamp_ms=1_700_000_000_000,
            random_bytes=random.Random(name).randbytes,
        )

    founded = make("founder", None)
    assert founded.chain_id == "own-chain"
    key = config.read_key(tmp_path / "founder" / "validator.key")
    assert [validator.public_key for validator in founded.validators.validators] == [key.public_key]
    joined = make("joiner", tmp_path / "founder" / "genesis.json")
    assert joined.digest == founded.digest
    joiner = config.read_key(tmp_path / "joiner" / "validator.key")
    assert joined.validators.get_index(joiner.public_key) is None


def test_ports_and_pacing_of_an_existing_network_can_be_changed(tmp_path: Path) -> None:
    network = create(tmp_path / "net")
    home.set_local_settings(network.homes, 30_000, None)
    home.set_local_settings(network.homes, None, 77)
    settings = [config.read_config(path) for path in network.homes]
    assert {entry.block_interval_ms for entry in settings} == {77}
    assert [(entry.p2p_port, entry.api_port) for entry in settings] == [
        (30_000 + 10 * place, 30_001 + 10 * place) for place in range(3)
    ]
    urls = {entry.name: f"ws://127.0.0.1:{entry.p2p_port}" for entry in settings}
    assert all(peer.url == urls[peer.name] for entry in settings for peer in entry.peers)
    with pytest.raises(Rejected, match="--base-port"):
        home.set_local_settings(network.homes, 65_530, None)


def test_a_network_of_which_a_node_runs_is_not_stopped(tmp_path: Path) -> None:
    network = create(tmp_path / "net", NetworkPlan(2, 20_000, 250, clock=CLOCK_WORKLOAD, module_names=()))
    home.check_stopped(tmp_path / "net")
    lock = home.RealDisk().acquire_lock(network.homes[1] / "lock")
    with pytest.raises(Rejected, match=f"process {os.getpid()}"):
        home.check_stopped(tmp_path / "net")
    lock.release()
    home.check_stopped(tmp_path / "net")


def test_a_peer_from_elsewhere_keeps_its_address_and_a_bad_home_leaves_all_as_they_were(
    tmp_path: Path,
) -> None:
    network = create(tmp_path / "net")
    settings = config.read_config(network.homes[0])
    far = config.PeerConfig("far", "ws://192.0.2.1:9000", settings.peers[0].node_key)
    config.write_config(network.homes[0], replace(settings, peers=(*settings.peers, far)))
    home.set_local_settings(network.homes, 30_000, None)
    changed = config.read_config(network.homes[0])
    assert changed.peers[-1] == far
    assert [peer.url for peer in changed.peers[:-1]] == ["ws://127.0.0.1:30010", "ws://127.0.0.1:30020"]
    (network.homes[2] / "node.json").write_text("{")
    with pytest.raises(Rejected, match="is not JSON"):
        home.set_local_settings(network.homes, 31_000, None)
    assert config.read_config(network.homes[0]) == changed


def test_what_is_left_of_a_network_may_be_removed_but_not_with_anything_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    network = create(folder)
    home.check_removable(folder)
    (folder / "notes.txt").write_text("mine")
    home.check_removable(folder)  # a whole network: all in its folder is its own
    (network.homes[1] / "genesis.json").unlink()
    with pytest.raises(Rejected, match="does not exist"):
        home.check_removable(folder)
    (folder / "notes.txt").unlink()
    home.check_removable(folder)
    (folder / "accounts.key").unlink()
    home.check_removable(folder)
    lock = home.RealDisk().acquire_lock(network.homes[2] / "lock")
    with pytest.raises(Rejected, match=f"process {os.getpid()}"):
        home.check_removable(folder)
    lock.release()


@pytest.mark.parametrize("name", ["node0", "report.json", "accounts.key"])
def test_a_folder_that_never_held_a_network_is_not_removable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(Rejected, match="holds no local network"):
        home.check_removable(tmp_path)


def test_what_an_existing_network_cannot_follow_is_refused_and_what_it_has_is_not(tmp_path: Path) -> None:
    network = create(tmp_path / "net")
    has = {"--modules": (), "--epoch-blocks": 0, "--reports-min": 1, "--module-room": 0, "--churn-bp": None}
    home.check_same_chain(network, has)
    for option, value in (
        ("--modules", ("fraud",)),
        ("--epoch-blocks", 8),
        ("--leader-election", "onion"),
        ("--reporting", "registered"),
        ("--reports-min", 2),
        ("--module-room", 9),
    ):
        with pytest.raises(Rejected, match=f"{option}: the network that stands here has .*add --fresh"):
            home.check_same_chain(network, {**has, option: value})


def test_the_folder_one_stands_in_is_not_replaced_under_ones_feet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name in (".", "../empty"):
        with pytest.raises(Rejected, match="name one inside it"):
            create(Path(name))
    assert len(create(Path("net")).homes) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
