"""The model watch: each change of the modules is told once, however many blocks become final at once."""

from node.api.event_ring import EventRing
from node.api.model_records import EraRecord
from node.desks.models import ModelDesk
from node.duties.model_watch import ModelWatch
from tests.model_chain import GENESIS_DIGEST, ModelChain, digest_of, retire, seat

DOUBLE = b"2 c 4"


class Heard(EventRing):
    """Keeps what is published."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heard: list[tuple[str, dict]] = []  # type: ignore[type-arg]

    def publish(self, name, data, weight=1):  # type: ignore[no-untyped-def]
        self.heard.append((name, data))


def make() -> tuple[ModelChain, Heard, ModelWatch]:
    chain, events = ModelChain(), Heard()
    chain.grow(*chain.publish(DOUBLE))
    return chain, events, ModelWatch(events, chain.view)


def test_a_change_is_told_with_the_first_height_that_it_holds_for() -> None:
    chain, events, watch = make()
    height = chain.decide(seat(DOUBLE, GENESIS_DIGEST))
    while chain.height < height + 2:
        watch.on_final(chain.view)
        chain.grow()
    ((name, told),) = events.heard
    assert (name, told["height"]) == ("model", height)
    assert [model["digest"] for model in told["models"]] == ["0x" + digest_of(DOUBLE).hex()]
    assert told["decisions"][0]["outcome"] == "done"


def test_several_changes_at_once_are_told_in_order_and_a_restart_tells_none_again() -> None:
    chain, events, watch = make()
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    chain.settle(retire(DOUBLE))
    watch.on_final(chain.view)
    watch.on_final(chain.view)
    assert [len(told["models"]) for _, told in events.heard] == [1, 0]
    again = Heard()
    ModelWatch(again, chain.view).on_final(chain.view)
    chain.grow()
    ModelWatch(again, chain.view).on_final(chain.view)
    assert again.heard == []


# --- what /v1/models tells ---------------------------------------------------------------------------


def list_history(chain: ModelChain) -> list[EraRecord]:
    return list(ModelDesk(chain.view).list_all().history)


def test_a_seat_is_told_with_the_height_since_which_it_is_held_without_a_break() -> None:
    chain, _, _ = make()
    chain.settle(seat(DOUBLE, weight=0))
    since = chain.height + 1
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    (model,) = ModelDesk(chain.view).list_models()
    assert (model.digest, model.weight, model.since) == (digest_of(DOUBLE), 1, since)
    chain.settle(seat(GENESIS_DIGEST, DOUBLE))
    (model,) = ModelDesk(chain.view).list_models()
    assert model.since == chain.height + 1 == list_history(chain)[-1].height


def test_publications_are_told_with_what_became_of_them() -> None:
    chain, _, _ = make()
    long = b"3 c 4 " + b"." * 4_000
    chain.grow(*chain.publish(b"broken"), chain.publish(long)[0])
    record = ModelDesk(chain.view).list_all()
    told = {entry.digest: (entry.status, entry.chunks_here, entry.chunks) for entry in record.published}
    assert told == {
        GENESIS_DIGEST: ("genesis", 0, 0),
        digest_of(DOUBLE): ("sound", 1, 1),
        digest_of(b"broken"): ("unsound", 1, 1),
        digest_of(long): ("arriving", 1, 2),
    }
    assert (record.room_bytes, record.room_used_bytes) == (20, 5)
