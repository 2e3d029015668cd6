"""Every scenario file comes out as it says; the language refuses what it does not understand, by line."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.bft.simplex import SimplexEngine
from consensus.errors import Rejected
from consensus.vote import Certificate, ValidatorSet
from node.blocks.catch_up import CatchUp
from node.simulation import villains
from node.simulation.config import SimulationConfig
from node.simulation.engine_world import simulate
from node.simulation.full_nodes.liars import LIARS
from node.simulation.scenarios import list_scenarios, load_scenario, parse_scenario, run_scenario
from node.simulation.scenarios.acting import make_stage
from node.simulation.scenarios.expectations import Facts, judge_words
from node.simulation.scenarios.twins import translate
from node.simulation.timeline import Timeline
from node.simulation.toys import GENESIS
from tests.fakes.broken_engines import Amnesiac, Hasty

SEEDS = 3  # besides a file's own: latencies and judging times differ


@pytest.mark.parametrize("name", list_scenarios())
def test_each_scenario_comes_out_as_it_says(name: str, seed: int, note_replay: Callable[[str], None]) -> None:
    text = load_scenario(name)
    # Whole nodes take seconds, and their stories name views and times more loosely.
    seeds = 1 if parse_scenario(text).is_full else SEEDS
    for chosen in (None, *range(seed, seed + seeds)):
        outcome = run_scenario(text, chosen)
        note_replay(f"assay simulate --scenario {name} --seed {outcome.run.seed}")
        assert outcome.failures == ()


def test_each_scenario_has_a_title_and_says_what_it_expects() -> None:
    for name in list_scenarios():
        scenario = parse_scenario(load_scenario(name))
        assert scenario.title.endswith("."), name
        assert scenario.expectations


def test_there_is_a_scenario_for_each_mistake_that_engines_can_make() -> None:
    told = [name for name in list_scenarios() if "Mistake of others" in load_scenario(name)]
    whole = [name for name in told if parse_scenario(load_scenario(name)).is_full]
    assert len(told) - len(whole) == 13  # one has two files
    assert len(whole) == 3  # those in which a store takes part


def test_the_same_text_and_seed_give_the_same_trace() -> None:
    text = load_scenario("equivocating-leader-and-crashes")
    assert run_scenario(text) == run_scenario(text)
    assert run_scenario(text, 1).run.trace_hash != run_scenario(text, 2).run.trace_hash


@pytest.mark.parametrize(
    ("story", "mutant", "complaint"),
    [
        ("full-restart-keeps-notarized-blocks", Amnesiac, "no way back"),
        ("hidden-lock", Hasty, "single votes"),
    ],
)
def test_a_scenario_catches_the_mistake_it_tells_of(
    story: str, mutant: type[SimplexEngine], complaint: str
) -> None:
    outcome = run_scenario(load_scenario(story), None, mutant)
    assert outcome.run.violation.startswith(complaint)
    assert not outcome.is_as_expected


def test_an_expectation_that_fails_says_what_came_instead() -> None:
    outcome = run_scenario("expect final >= 100000\nexpect evidence against 3\n")
    assert outcome.failures[0].startswith("line 1: expect final >= 100000: final is ")
    assert outcome.failures[1] == "line 2: expect evidence against 3: evidence was against nobody"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("expect no violation\nfly 3", 2, "fly"),
        ("partition 0 1 2 in viw 3\nexpect no violation", 1, "not understood"),
        ("validators 4\ncrash 9 at 1s\nexpect no violation", 2, "no validator 9"),
        ("villain 3 dragon", 1, "dragon"),
        ("partition 0' | 1", 1, "double-identity"),
        ("crash 1 at noon", 1, "noon"),
        ("crash 1 after certificate in view 3", 1, "certificate"),
        ("lose sleep in view 3", 1, "sleep"),
        ("validators 0", 1, "not understood"),
        ("stakes 1 -1", 1, "not understood"),
        ("loss 1.5", 1, "not understood"),
        ("expect miracles", 1, "miracles"),
        ("expect view 3 blessed", 1, "blessed"),
    ],
)
def test_what_is_not_understood_is_refused_with_line_and_mend(text: str, line: int, words: str) -> None:
    with pytest.raises(Rejected) as refusal:
        run_scenario(text)
    assert refusal.value.field == f"line {line}"
    assert words in str(refusal.value)
    assert refusal.value.mend


def test_a_scenario_without_expectations_or_with_too_many_villains_is_refused() -> None:
    with pytest.raises(Rejected, match="expects nothing"):
        run_scenario("validators 4")
    with pytest.raises(Rejected, match="third"):
        run_scenario("villain 0 silent\nvillain 1 silent\nexpect no violation")


def test_a_file_that_is_not_there_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(Rejected) as refusal:
        load_scenario("no-such-file.txt")
    assert "hidden-lock" in refusal.value.mend


def test_one_way_losses_and_time_spans_do_what_they_say() -> None:
    text = "lose everything from 0 between 300ms and 1500ms\nfaults 1500ms\n"
    outcome = run_scenario(text + "expect no violation\nexpect no evidence")
    assert outcome.failures == ()
    assert {block.proposer for block in outcome.facts.chain[1:]} >= {1, 2, 3}


def test_a_crash_before_a_vote_is_heard_keeps_the_vote() -> None:
    text = "lose proposals in view 4\ncrash 1 before nullify in view 4 for 50ms\n"
    outcome = run_scenario(text + "expect nullify votes in view 4 = 4\nexpect crashes = 1")
    assert outcome.failures == ()


def test_a_twins_case_becomes_a_scenario_that_reads_like_one() -> None:
    case = {
        "round_leaders": {"3": [0, 4], "4": [1]},
        "round_partitions": {"3": [[0, 1, 2], [3, 4]], "4": [[0, 1, 2, 3, 4]]},
        "firewall": {"4": {"1": [2, 3]}},
    }
    text = translate(case, nodes=4, twins=1, title="a case")
    assert "villain 0 double-identity" in text
    assert "leader 0 in view 1" in text
    assert "partition 0 1 2 | 3 0' in view 1 for 300ms" in text
    assert "lose everything from 1 to 2 3 in view 2 for 300ms" in text
    assert run_scenario(text).failures == ()
    with pytest.raises(Rejected, match="Twins"):
        translate({"rounds": 3}, nodes=4, twins=1, title="no case")


def test_every_form_of_expectation_can_fail_and_can_hold() -> None:
    facts = Facts("", (GENESIS,), frozenset(), frozenset((3,)), frozenset((1,)), frozenset(), 9, 0, 4, 2)
    holds = [
        "no violation",
        "evidence against 1",
        "views <= 9",
        "view 3 nullified",
        "view 3 not final",
        "rounds = 4",
    ]
    fails = [
        "violation",
        "no evidence",
        "views >= 10",
        "view 3 notarized",
        "no view nullified after 2",
        "final >= 1",
    ]
    holds += ["no refused messages", "resumed within 2 views", "no vote of 2 after 1s", "crashes = 0"]
    fails += [
        "refused messages from 2",
        "resumed within 1 views",
        "node 0 at final >= 1",
        "nullify votes in view 3 = 4",
    ]
    assert [judge_words(tuple(text.split()), facts) for text in holds] == [""] * len(holds)
    assert all(judge_words(tuple(text.split()), facts) for text in fails)


def read_exercises(language: str) -> list[str]:
    """The blocks of docs/breaking-consensus.md in this language."""
    page = (Path(__file__).parents[2] / "docs" / "breaking-consensus.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_villain_and_the_fault_of_the_docs_work_as_printed(seed: int) -> None:
    villain, fault, _ = read_exercises("python")
    try:
        exec(compile(villain, "the villain", "exec"), {"__name__": "exercise"})
        config = SimulationConfig(villains=("copycat",))
        outcomes = [simulate(config, seed + number) for number in range(8)]
    finally:
        villains.VILLAINS.pop("copycat", None)
    assert {outcome.violation for outcome in outcomes} == {""}
    assert sum(outcome.evidence for outcome in outcomes) > 0
    # A dataclass looks its module up: any will do.
    exec(compile(fault, "the fault", "exec"), {"__name__": __name__})


def test_the_liar_of_the_docs_works_as_printed(seed: int) -> None:
    _, _, liar = read_exercises("python")
    try:
        exec(compile(liar, "the liar", "exec"), {"__name__": "exercise"})
        losses = "".join(f"forget store of 1 at {at_ms}ms\n" for at_ms in (700, 1100, 1500))
        expected = "expect no violation\nexpect all level\nexpect 3 penalised by 1"
        outcome = run_scenario(f"full nodes\nliar 3 abridger\n{losses}{expected}", seed)
    finally:
        LIARS.pop("abridger", None)
    assert outcome.failures == ()


def test_the_scenarios_of_the_docs_work_as_printed() -> None:
    for text in read_exercises("scenario"):
        assert run_scenario(text).failures == ()


# --- whole nodes --------------------------------------------------------------------------------------


def test_a_whole_node_story_is_the_same_on_every_run_and_watched_or_not() -> None:
    text = load_scenario("store-deleted-journal-kept")
    first = run_scenario(text)
    stage = make_stage(parse_scenario(text), first.run.seed)
    stage.timeline = Timeline()
    assert stage.summarize(stage.run()) == first.run


class Careless(CatchUp):
    """A mutant that takes any certificate for a quorum's."""

    def _check_certificate(self, certificate: Certificate, validators: ValidatorSet) -> None:
        pass


def test_who_believes_any_certificate_follows_a_branch_signed_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CatchUp, "_check_certificate", Careless._check_certificate)
    outcome = run_scenario(load_scenario("branch-signed-by-one"))
    assert outcome.run.violation.split(":")[0] in ("one chain", "final implies notarized", "gaps")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("liar 3 wrong-score", "full nodes"),
        ("full nodes\nliar 3 dragon", "dragon"),
        ("forget store of 2 at 1s", "full nodes"),
        ("forget journal of 2 after notarize in view 3", "full nodes"),
        ("full nodes\nforget store of 2 after sleep in view 3", "sleep"),
        ("stop 1 at 1s", "full nodes"),
        ("full nodes\njudging takes 80ms at 3", "own time"),
    ],
)
def test_what_only_whole_nodes_know_is_refused_to_engines_with_the_mend(text: str, words: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_scenario(text + "\nexpect no violation")
    assert refusal.value.field == f"line {text.count(chr(10)) + 1}"
    assert words in str(refusal.value)


def test_expectations_of_whole_nodes_can_fail_and_can_hold() -> None:
    facts = Facts("", (GENESIS,), *(frozenset(),) * 4, 9, 0, 4, 2)
    level = replace(facts, heights={0: 3, 1: 3}, roots={0: b"a", 1: b"a"}, transfers=4)
    fallen = replace(
        facts, heights={0: 3, 1: 4}, roots={0: b"a", 1: b"b"}, penalised=frozenset({(0, 3)}), transfers=3
    )
    texts = ["all level", "roots equal", "nobody penalised", "transfers final everywhere >= 4"]
    assert [judge_words(tuple(text.split()), level) for text in texts] == [""] * len(texts)
    assert all(judge_words(tuple(text.split()), fallen) for text in texts)
    assert judge_words(("3", "penalised", "by", "0"), fallen) == ""
    assert judge_words(("3", "penalised", "by", "1"), fallen) == "it was penalised by [0]"
    assert judge_words(("node", "2", "observed"), replace(facts, observed=frozenset({2}))) == ""
    assert judge_words(("node", "2", "observed"), facts)
