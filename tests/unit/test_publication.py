"""Publishing models: chunks in any order, who is refused, what is unsound, and what is forgotten."""

import pytest

from consensus import codec
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import models, publication
from consensus.ledger import records as rec
from consensus.ledger.models import ARTIFACT_BYTES_MAX, CHUNK_BYTES
from consensus.ledger.rules import Rules
from consensus.ledger.shelf import ModuleShelf
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import KIND_PUBLISH_MODEL
from tests.ledger_chain import CountingModule
from tests.model_chain import LOADED, PEOPLE, MadeModule, ModelChain, digest_of, make_model_genesis, seat
from tests.staking_chain import BLOCK_MS

DOUBLE = b"2 c 4"
LONG = b"2 c 4 " + b"." * (2 * CHUNK_BYTES)


@pytest.fixture
def chain() -> ModelChain:
    return ModelChain()


def test_a_model_is_known_once_its_last_chunk_came_in_whatever_order(chain: ModelChain) -> None:
    first, second, third = chain.publish(LONG)
    chain.grow(third)
    chain.grow(first)
    assert not chain.is_known(LONG)
    chain.grow(second)
    model = models.find_model(chain.view.records, digest_of(LONG))
    assert model is not None
    assert (model.name, model.row_bytes, model.height, model.since) == ("counting", 4, 3, 0)
    found = models.find_publication(chain.view.records, model.publication)
    assert found is not None
    assert models.read_artifact(chain.view.records, model.publication, found.manifest) == LONG
    assert (found.publisher, found.had, found.height, found.is_unsound) == (PEOPLE[0].address, 3, 1, False)


def test_all_chunks_may_stand_in_one_block(chain: ModelChain) -> None:
    chain.grow(*chain.publish(LONG))
    assert chain.is_known(LONG)


def test_the_time_that_a_later_transfer_brings_does_not_change_what_is_kept() -> None:
    """On the workload's clock a block's time rises with its transactions; a judge knows its end at once."""
    chain = ModelChain(make_model_genesis(clock=CLOCK_WORKLOAD))
    later = chain.transfer(PEOPLE[1], PEOPLE[2], timestamp_ms=chain.now_ms + 1)
    chain.grow(*chain.publish(LONG), later)
    assert chain.is_known(LONG)


def test_it_is_loaded_once_and_only_when_whole(chain: ModelChain) -> None:
    artifact = b"7 c 4 " + b"," * CHUNK_BYTES
    first, second = chain.publish(artifact)
    LOADED.clear()
    chain.grow(first)
    assert LOADED == []
    chain.rules.find_inadmissible((second,), chain.view, chain.now_ms)
    assert LOADED == []  # a mempool's look costs no loading
    chain.grow(second)
    chain.settle(seat(artifact))
    chain.grow(chain.transfer(PEOPLE[0], PEOPLE[1]))
    assert [artifact] == LOADED


@pytest.mark.parametrize(
    ("artifact", "digest"),
    [(b"broken", b""), (DOUBLE, b"x" * 32), (b"2 c 20", b"")],
    ids=["does not load", "another digest", "needs more than the room"],
)
def test_of_what_is_unsound_no_model_comes_and_the_publisher_pays(
    chain: ModelChain, artifact: bytes, digest: bytes
) -> None:
    balance = chain.balance(PEOPLE[0])
    (tx,) = chain.publish(artifact, digest)
    chain.grow(tx)
    (entry,) = models.walk_publications(chain.view.records)
    assert (entry[1].is_whole, entry[1].is_unsound) == (True, True)
    assert models.find_model(chain.view.records, digest or digest_of(artifact)) is None
    assert chain.balance(PEOPLE[0]) == balance - tx.fee


def test_a_row_as_large_as_the_room_fits(chain: ModelChain) -> None:
    chain.grow(*chain.publish(b"2 c 19"))
    assert chain.is_known(b"2 c 19")


def test_a_last_chunk_that_does_not_make_up_the_hash_is_refused_and_the_right_one_is_not(
    chain: ModelChain,
) -> None:
    payloads = [chain.chunk(LONG, index) for index in range(3)]
    chain.grow(*(chain.send_chunk(payload) for payload in payloads[:2]))
    wrong = chain.chunk(LONG, 2, b"!" * (len(LONG) - 2 * CHUNK_BYTES))
    assert chain.refuse(chain.send_chunk(wrong)).code == "artifact_hash"
    chain.grow(chain.send_chunk(payloads[2]))
    assert chain.is_known(LONG)


def test_nobody_occupies_anothers_publication(chain: ModelChain) -> None:
    wrong = chain.chunk(LONG, 0, b"!" * CHUNK_BYTES)
    squatter = chain.make(KIND_PUBLISH_MODEL, PEOPLE[1], PEOPLE[1].address, wrong, fee=5_000)
    chain.grow(squatter)
    chain.grow(*chain.publish(LONG))
    assert chain.is_known(LONG)


def test_who_breaks_a_rule_is_refused(chain: ModelChain) -> None:
    payload = chain.chunk(DOUBLE)
    fee = publication.compute_fee_min(payload, 1, 1)
    assert chain.refuse(chain.send_chunk(payload, fee=fee - 1)).code == "fee"
    assert chain.refuse(chain.send_chunk(payload, amount=1)).code == "range"
    stranger = chain.make(KIND_PUBLISH_MODEL, PEOPLE[0], PEOPLE[1].address, payload, fee=fee)
    assert chain.refuse(stranger).code == "receiver"
    (other,) = chain.publish(DOUBLE, name="other")
    assert chain.refuse(other).code == "model_name"
    (known,) = chain.publish(DOUBLE, CountingModule.digest)
    assert chain.refuse(known).code == "model_known"
    chain.grow(chain.send_chunk(chain.chunk(LONG)))
    assert chain.refuse(chain.send_chunk(chain.chunk(LONG))).code == "chunk_twice"
    chain.grow(*chain.publish(DOUBLE))
    assert chain.refuse(chain.send_chunk(payload)).code == "model_known"


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (0, "", "payload.name"),
        (1, b"d" * 31, "payload.digest"),
        (2, "x", "payload.artifact_hash"),
        (3, 0, "payload.artifact_bytes"),
        (3, ARTIFACT_BYTES_MAX + 1, "payload.artifact_bytes"),
        (4, 1, "payload.index"),
        (5, b"", "payload.chunk"),
        (5, DOUBLE + b"!", "payload.chunk"),
        (5, 5, "payload.chunk"),
    ],
)
def test_a_bad_payload_is_refused_by_its_field(
    chain: ModelChain, place: int, value: object, field: str
) -> None:
    fields = list(codec.decode(chain.chunk(DOUBLE), what="payload", bytes_max=4_096))
    fields[place] = value
    with pytest.raises(Rejected) as caught:
        publication.decode_chunk(codec.encode(tuple(fields)))
    assert caught.value.field == field


def test_a_chunk_of_full_size_with_the_longest_name_fits_a_transaction() -> None:
    payloads = list(publication.cut_artifact("n" * 64, b"d" * 32, bytes(ARTIFACT_BYTES_MAX)))
    assert len(payloads) == models.CHUNKS_MAX
    assert publication.decode_chunk(payloads[0]).index == 0
    with pytest.raises(Rejected):
        next(publication.cut_artifact("n", b"d" * 32, bytes(ARTIFACT_BYTES_MAX + 1)))


# --- what is forgotten ------------------------------------------------------------------------------


def list_keys(chain: ModelChain) -> set[bytes]:
    """Of all that publications leave in the state."""
    namespaces = (rec.NAMESPACE_PUBLICATION, rec.NAMESPACE_ARTIFACT, rec.NAMESPACE_EXPIRY)
    return {key for namespace in namespaces for key, _ in chain.view.records.walk(namespace)}


def wait(chain: ModelChain, blocks: int) -> None:
    for _ in range(blocks):
        chain.grow()


LIFE_BLOCKS = 2_000 // BLOCK_MS - 1  # a chunk counts from its own time, which is that of the block before


def test_what_nobody_approved_is_forgotten_without_a_trace(chain: ModelChain) -> None:
    chain.grow(*chain.publish(LONG)[:2])
    chain.grow(*chain.publish(DOUBLE))
    wait(chain, LIFE_BLOCKS - 1)
    assert chain.is_known(DOUBLE)
    wait(chain, 1)  # the first is over its time now
    assert chain.is_known(DOUBLE)
    wait(chain, 2)
    assert not chain.is_known(DOUBLE)
    assert list_keys(chain) == set()


def test_one_publication_is_forgotten_a_block(chain: ModelChain) -> None:
    chain.grow(*chain.publish(DOUBLE), *chain.publish(b"3 c 4"), *chain.publish(b"broken"))
    wait(chain, LIFE_BLOCKS)
    counts = []
    for _ in range(3):
        wait(chain, 1)
        counts.append(len(list(models.walk_publications(chain.view.records))))
    assert counts == [2, 1, 0]


def test_a_chunk_gives_the_others_more_time(chain: ModelChain) -> None:
    first, second, third = (chain.chunk(LONG, index) for index in range(3))
    chain.grow(chain.send_chunk(first))
    wait(chain, LIFE_BLOCKS - 1)
    chain.grow(chain.send_chunk(second))
    wait(chain, LIFE_BLOCKS - 1)
    chain.grow(chain.send_chunk(third))
    assert chain.is_known(LONG)


def test_what_was_approved_stays_though_it_never_judged(chain: ModelChain) -> None:
    chain.grow(*chain.publish(DOUBLE))
    chain.decide(seat(DOUBLE), height=100)
    wait(chain, LIFE_BLOCKS + 5)
    assert chain.is_known(DOUBLE)


def test_what_was_forgotten_can_be_published_again(chain: ModelChain) -> None:
    chain.grow(*chain.publish(DOUBLE))
    wait(chain, LIFE_BLOCKS + 2)
    chain.grow(*chain.publish(DOUBLE))
    assert chain.is_known(DOUBLE)


# --- who cannot load --------------------------------------------------------------------------------


def test_rules_without_a_loader_stop_with_a_fault_rather_than_judge_otherwise(chain: ModelChain) -> None:
    blind = Rules(make_model_genesis(), (CountingModule(),))
    view = blind.create_genesis_state().view()
    assert view.root == chain.view.root
    built = chain.build(*chain.publish(DOUBLE))
    with pytest.raises(Fault, match="no loader"):
        blind.check_block(view, built.block, None)


def test_so_many_models_become_whole_in_a_block_and_no_more(
    chain: ModelChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leads could fill a block with them, and all the others would load for as long as it takes."""
    artifacts = [b"%d c 4" % factor for factor in range(2, 3 + publication.MODELS_MADE_MAX)]
    chunks = [chunk for artifact in artifacts for chunk in chain.publish(artifact)]
    built = chain.build(*chunks)
    assert built.block.transactions == tuple(chunks[:-1])
    assert [(tx, type(error), error.code) for tx, error in built.rejected] == [
        (chunks[-1], NotYet, "models_made")
    ]
    with monkeypatch.context() as patch:
        patch.setattr(publication, "MODELS_MADE_MAX", 100)
        full = chain.build(*chunks).block
    with pytest.raises(Rejected, match="models became whole in this block"):
        chain.check(full)


def test_a_model_that_cannot_be_read_here_and_now_is_no_verdict_on_it() -> None:
    failures = [OSError("too many open files"), ImportError("gone")]

    def load(name: str, artifact: bytes) -> MadeModule:
        if failures:
            raise failures.pop()
        return MadeModule(artifact)

    shelf = ModuleShelf((CountingModule(),), load)
    for _ in range(2):
        with pytest.raises(Fault, match="could not be loaded here"):
            shelf.make("counting", DOUBLE)
    assert shelf.make("counting", DOUBLE).digest == digest_of(DOUBLE)
