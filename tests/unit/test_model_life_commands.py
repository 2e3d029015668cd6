"""`assay model approve / retire / rollback / list / compare`: what is meant where little is said, and what is shown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import Rejected
from consensus.ledger.motion import Motion, RetireModel, SeatModel
from consensus.ledger.scoring import Thresholds
from node import config
from node.api.model_forms import form_models
from node.commands import model as command
from node.desks.models import ModelDesk
from node.modelling.deciding import AHEAD_BLOCKS, find_operators, plan_motion
from tests.fakes.fake_door import KEYS, FakeDoor
from tests.model_chain import GENESIS_DIGEST, LIMITS, ModelChain, digest_of, make_model_genesis, seat
from tests.unit.test_client_commands import door, run, running  # noqa: F401

DOUBLE, OTHER = b"2 c 4", b"3 d 6"
FIRST = 30  # the lowest height that is spoken of


@pytest.fixture
def chain() -> ModelChain:
    chain = ModelChain(make_model_genesis(publication_ms=1_000_000))
    chain.grow(*chain.publish(DOUBLE), *chain.publish(OTHER))
    return chain


def plan(chain: ModelChain, *arguments: str) -> Motion:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    document = json.loads(json.dumps(form_models(ModelDesk(chain.view).list_all())))
    return plan_motion(document, parser.parse_args(arguments), FIRST)


def refuse(chain: ModelChain, *arguments: str) -> Rejected:
    with pytest.raises(Rejected) as caught:
        plan(chain, *arguments)
    return caught.value


def short(artifact: bytes) -> str:
    return digest_of(artifact).hex()[:8]


def test_a_model_takes_the_seat_of_the_one_that_judges_with_its_thresholds(chain: ModelChain) -> None:
    change = SeatModel(digest_of(DOUBLE), LIMITS, 1, GENESIS_DIGEST)
    assert plan(chain, "approve", short(DOUBLE)) == Motion(FIRST + AHEAD_BLOCKS, change)
    assert plan(chain, "approve", "0x" + digest_of(DOUBLE).hex(), "--at", "77") == Motion(77, change)


def test_who_approves_after_another_joins_its_motion(chain: ModelChain) -> None:
    chain.grow(chain.approve(0, seat(DOUBLE, GENESIS_DIGEST), 44))
    assert plan(chain, "approve", short(DOUBLE)).height == 44
    assert plan(chain, "approve", short(DOUBLE), "--weight", "2").height == FIRST + AHEAD_BLOCKS


def test_all_of_a_motion_can_be_said(chain: ModelChain) -> None:
    said = ("--flag", "1", "--refuse", "9", "--weight", "0")
    assert plan(chain, "approve", short(DOUBLE), "--beside", *said).change == SeatModel(
        digest_of(DOUBLE), Thresholds(1, 9), 0
    )
    chain.settle(seat(OTHER))
    place = GENESIS_DIGEST.hex()
    assert plan(chain, "approve", short(DOUBLE), "--in-place-of", place).change == SeatModel(
        digest_of(DOUBLE), LIMITS, 1, GENESIS_DIGEST
    )
    assert refuse(chain, "approve", short(DOUBLE)).field == "--in-place-of"
    assert plan(chain, "retire", short(OTHER)).change == RetireModel(digest_of(OTHER))


def test_a_watcher_takes_over_from_the_one_that_judges(chain: ModelChain) -> None:
    chain.settle(seat(OTHER, weight=0))
    change = plan(chain, "approve", short(OTHER)).change
    assert change == SeatModel(digest_of(OTHER), LIMITS, 1, GENESIS_DIGEST)


def test_the_way_back_is_read_from_the_history(chain: ModelChain) -> None:
    assert refuse(chain, "rollback").field == "rollback"
    chain.settle(seat(DOUBLE, GENESIS_DIGEST, limits=Thresholds(7, 8)))
    chain.settle(seat(DOUBLE, DOUBLE, limits=Thresholds(5, 6)))  # is no switch
    assert plan(chain, "rollback").change == SeatModel(GENESIS_DIGEST, LIMITS, 1, digest_of(DOUBLE))
    chain.settle(seat(OTHER, DOUBLE))
    assert plan(chain, "rollback").change == SeatModel(
        digest_of(DOUBLE), Thresholds(5, 6), 1, digest_of(OTHER)
    )


def test_a_digest_that_names_no_model_or_several_is_refused_with_those_there_are(chain: ModelChain) -> None:
    for text in ("deadbeef", "0x", "12", digest_of(b"broken").hex()):
        assert digest_of(DOUBLE).hex() in refuse(chain, "approve", text).mend
    assert refuse(chain, "retire", short(DOUBLE)).code == "model_unknown"  # it has no seat


def test_keys_are_those_of_operators(tmp_path: Path) -> None:
    config.write_key(tmp_path / "validator.key", KEYS[0])
    (key,) = find_operators(None, str(tmp_path), every=False)
    assert key.address == KEYS[0].address
    for key_file, home, every in (
        (None, None, True),
        ("k", str(tmp_path), True),
        (None, str(tmp_path.parent), False),
    ):
        with pytest.raises(Rejected):
            find_operators(key_file, home, every=every)


# --- what is shown -----------------------------------------------------------------------------------


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run("model", *arguments) == 0
    return capsys.readouterr().out


def test_list_shows_who_judges_what_is_known_and_what_is_being_decided(
    running: str, door: FakeDoor, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    text = show(capsys, "list", "--api", running)
    digest = "0x" + door.get_models().models[0].digest.hex()
    assert text.count(digest) == 4
    assert "227 of 500 bytes" in text
    document: dict[str, Any] = json.loads(show(capsys, "list", "--api", running, "--json"))
    assert document == form_models(door.get_models())


def test_compare_shows_both_on_what_came_since(
    running: str, door: FakeDoor, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    digest = door.get_models().models[0].digest.hex()
    text = show(capsys, "compare", digest[:10], "--api", running)
    for words in ("blocks             3 to 9", "7 (77.78%)", "it: refuse", "0.7000"):
        assert words in text, text
    assert json.loads(show(capsys, "compare", digest[:10], "--api", running, "--json"))["agreeing"] == 7
