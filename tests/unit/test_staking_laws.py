"""Laws of the stake: money is conserved, rounding makes none, and no lie gets away with its stake."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.errors import NotYet, Rejected
from consensus.ledger import epochs, selection, staking, supply
from consensus.ledger.building import Built
from consensus.parameters import WHOLE_BP
from consensus.transaction import Transaction
from tests.ledger_chain import BALANCE
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis, make_voting_key

EVERYBODY = (*OPERATORS, *PEOPLE)
NUMBERS = st.integers(0, 6)
WHO = st.integers(0, len(EVERYBODY) - 1)
UNITS = st.sampled_from([0, 1, 9, 10, 99, 100, 777, STAKE, 3_333, BALANCE]) | st.integers(0, 2_000)


class StakingMachine(RuleBasedStateMachine):
    """Any order of staking transactions, absences and lies; every block is built, checked and committed."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = StakingChain(
            make_staking_genesis((1_000, 700, 700, 300), validators_max=4, reward_units=37, jail_epochs=1)
        )
        self.waiting: list[Transaction] = []
        self.liars: set[int] = set()

    def put(self, tx: Transaction) -> None:
        self.waiting.append(tx)

    @rule(number=NUMBERS, amount=UNITS, commission_bp=st.sampled_from([0, 500, 10_000]))
    def found(self, number: int, amount: int, commission_bp: int) -> None:
        self.put(self.chain.found(number, amount, commission_bp=commission_bp))

    @rule(who=WHO, number=NUMBERS, amount=UNITS)
    def bond(self, who: int, number: int, amount: int) -> None:
        self.put(self.chain.bond(EVERYBODY[who], number, amount))

    @rule(who=WHO, number=NUMBERS, units=UNITS)
    def unbond(self, who: int, number: int, units: int) -> None:
        self.put(self.chain.unbond(EVERYBODY[who], number, units))

    @rule(number=NUMBERS, units=UNITS)
    def unbond_own(self, number: int, units: int) -> None:
        self.put(self.chain.unbond(OPERATORS[number], number, units))

    @rule(who=WHO)
    def withdraw(self, who: int) -> None:
        self.put(self.chain.withdraw(EVERYBODY[who]))

    @rule(number=NUMBERS)
    def unjail(self, number: int) -> None:
        self.put(self.chain.unjail(number))

    @rule(number=NUMBERS, generation=st.integers(1, 3))
    def rotate(self, number: int, generation: int) -> None:
        self.put(self.chain.rotate(number, make_voting_key(number, generation)))

    @rule(who=WHO, amount=st.integers(0, 500), fee=st.integers(1, 60))
    def transfer(self, who: int, amount: int, fee: int) -> None:
        self.put(self.chain.transfer(EVERYBODY[who], EVERYBODY[who - 1], amount=amount, fee=fee))

    @rule(back=st.integers(0, 2), data=st.data())
    def lie(self, back: int, data: st.DataObject) -> None:
        epoch = max(0, self.chain.epoch - back)
        number = data.draw(st.sampled_from(sorted(self.chain.weights(epoch))))
        index = list(self.chain.weights(epoch)).index(number)
        key = self.chain.set_of(epoch).validators.validators[index].public_key
        keys = [OPERATORS[number], *(make_voting_key(number, generation) for generation in range(1, 4))]
        (signing,) = [candidate for candidate in keys if candidate.public_key == key]
        self.put(self.chain.accuse(number, self.chain.lie(number, epoch, key=signing)))

    @rule(absent=st.sets(st.integers(0, 3), max_size=2))
    def go_away(self, absent: set[int]) -> None:
        self.chain.absent = absent

    @precondition(lambda self: self.waiting)
    @rule()
    def grow(self) -> None:
        self.add_block(self.waiting)
        self.waiting = []

    @rule(count=st.integers(1, 7))
    def pass_time(self, count: int) -> None:
        for _ in range(count):
            self.add_block([])

    def add_block(self, candidates: list[Transaction]) -> None:
        chain = self.chain
        seated = set(chain.weights(chain.epoch))
        if seated <= chain.absent:
            chain.absent = set()  # somebody must propose
        built: Built = chain.build(*candidates)
        assert all(isinstance(error, Rejected | NotYet) and error.code for _, error in built.rejected)
        chain.add(built.block)

    @invariant()
    def money_is_where_the_supply_says(self) -> None:
        self.chain.check_money()

    @invariant()
    def pools_are_owned_wholly(self) -> None:
        records = self.chain.view.records
        for operator, stake in staking.walk_stakes(records):
            held = [staking.get_shares(records, key.address, operator) for key in EVERYBODY]
            assert sum(held) == stake.shares
            worth = [staking.compute_value(shares, stake.tokens, stake.shares) for shares in held]
            assert sum(worth) <= stake.tokens
            assert (stake.shares > 0) == (stake.tokens > 0)
        claimed: dict[tuple[bytes, int, int], int] = {}
        for key in EVERYBODY:
            for claim in staking.walk_claims(records, key.address):
                place = (claim.validator, claim.epoch, claim.is_after)
                claimed[place] = claimed.get(place, 0) + claim.amount
        assert len(claimed) == len(list(staking.walk_unbonding(records)))
        for place, amount in claimed.items():
            unbonding = staking.find_unbonding(records, *place)
            assert unbonding is not None
            assert unbonding.claimed == amount

    @invariant()
    def every_candidate_has_its_rank(self) -> None:
        records = self.chain.view.records
        stakes = dict(staking.walk_stakes(records))
        expected = [operator for operator, stake in stakes.items() if stake.is_candidate(100)]
        expected.sort(key=lambda operator: (-stakes[operator].tokens, stakes[operator].serial))
        assert list(staking.walk_candidates(records)) == expected

    @invariant()
    def the_next_set_differs_by_no_more_than_the_cap(self) -> None:
        chain = self.chain
        if chain.view.header.height % 3 or not chain.view.header.height:
            return
        earlier, later = chain.set_of(chain.epoch), chain.set_of(chain.epoch + 1)
        churn = selection.compute_churn_units(earlier, chain.rules.parameters)
        operators = {*earlier.operators, *later.operators}
        gains = [later.get_stake(operator) - earlier.get_stake(operator) for operator in operators]
        slashed = sum(
            earlier.get_stake(operator)
            for operator in earlier.operators
            if staking.get_stake(chain.view.records, operator).status == staking.TOMBSTONED
        )
        assert sum(gain for gain in gains if gain > 0) <= churn
        assert -sum(gain for gain in gains if gain < 0) <= churn + slashed
        for operator in later.operators:
            stake = staking.get_stake(chain.view.records, operator)
            assert later.get_stake(operator) <= stake.tokens or later == earlier


TestStakingMachine = StakingMachine.TestCase
TestStakingMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_nobody_pays_for_anothers_coming_and_going(shares: int, gained: int, amount: int) -> None:
    """What a share is worth never falls by a bond or an unbonding: rounding stays with those who stay."""
    tokens = shares + gained
    minted = staking.compute_minted(amount, tokens, shares)
    assert (tokens + amount) * shares >= tokens * (shares + minted)
    assert staking.compute_value(minted, tokens + amount, shares + minted) <= amount
    leaving = min(amount, tokens)
    gone = staking.compute_redeemed_shares(leaving, tokens, shares)
    assert (tokens - leaving) * shares >= tokens * (shares - gone)
    assert staking.compute_value(gone, tokens, shares) >= leaving


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 10**6), st.integers(0, 10**5)), min_size=1, max_size=30)
)
def test_shares_never_redeem_for_more_than_was_put_in_plus_rewards(
    steps: list[tuple[bool, int, int]],
) -> None:
    """One delegator among others that come and go; rewards are what the pool gains for nobody's money."""
    tokens = shares = 1_000
    mine, paid_in, paid_out, rewards = 0, 0, 0, 0
    for is_mine, amount, reward in steps:
        minted = staking.compute_minted(amount, tokens, shares)
        tokens, shares = tokens + amount, shares + minted
        if is_mine:
            mine, paid_in = mine + minted, paid_in + amount
        tokens, rewards = tokens + reward, rewards + reward
        if reward % 3 == 0 and mine:
            worth = staking.compute_value(mine, tokens, shares)
            part = min(worth, amount)
            if not part:
                continue
            gone = staking.compute_redeemed_shares(part, tokens, shares)
            assert gone <= mine
            tokens, shares, mine, paid_out = tokens - part, shares - gone, mine - gone, paid_out + part
    worth = staking.compute_value(mine, tokens, shares)
    assert paid_out + worth <= paid_in + rewards
    assert worth <= tokens


STEPS = st.lists(
    st.tuples(st.sampled_from(["unbond", "withdraw", "rotate", "bond", "time", "absent"]), WHO, UNITS),
    max_size=14,
)


@settings(max_examples=60)
@given(STEPS, st.integers(0, 2), STEPS)
def test_no_stake_that_misbehaved_escapes_slashing_inside_the_unbonding_period(
    before: list[tuple[str, int, int]], offender: int, after: list[tuple[str, int, int]]
) -> None:
    """Operator and delegators do whatever they like before and after the lie; evidence comes in its last epoch.

    What burns is at least a twentieth of the weight with which the liar could vote, give or take rounding.
    """
    chain = StakingChain(
        make_staking_genesis(
            (1_000, 900, 800, 700),
            churn_bp_max=10_000,
            participation_bp_min=0,
            fee_units_min=0,
            reward_units=0,
        )
    )
    chain.grow(*(chain.bond(person, number % 3, 500) for number, person in enumerate(PEOPLE)))
    play(chain, before)
    epoch = chain.epoch
    if offender not in chain.weights(epoch):
        return
    weight = chain.weights(epoch)[offender]
    index = list(chain.weights(epoch)).index(offender)
    voting_key = chain.set_of(epoch).validators.validators[index].public_key
    keys = [OPERATORS[offender], *(make_voting_key(offender, generation) for generation in range(1, 4))]
    (signing,) = [key for key in keys if key.public_key == voting_key]
    lie = chain.lie(offender, epoch, key=signing)
    last = epoch + chain.rules.parameters.evidence_epochs
    play(chain, after, until=last)
    chain.reach(last)
    while not epochs.is_boundary(chain.view.header.height + 1, 3):
        chain.grow(*list_withdrawals(chain))
    burned = supply.get_supply(chain.view.records).burned
    chain.grow(chain.accuse(offender, lie, PEOPLE[3]))  # in the last block in which it counts
    parts = 6  # the pool, and what left it in five epochs
    assert supply.get_supply(chain.view.records).burned - burned >= weight * 500 // WHOLE_BP - parts
    chain.check_money()


def list_withdrawals(chain: StakingChain) -> list[Transaction]:
    return [
        tx
        for tx in (chain.withdraw(key, nonce=10_000 + chain.view.header.height) for key in EVERYBODY)
        if not chain.build(tx).rejected
    ]


def play(chain: StakingChain, steps: list[tuple[str, int, int]], until: int = 10**6) -> None:
    for step, who, units in steps:
        if chain.epoch >= until:
            return
        person, number = EVERYBODY[who], who % 3
        tx: list[Transaction] = []
        match step:
            case "unbond":
                tx = [chain.unbond(OPERATORS[number], number, units), chain.unbond(person, number, units)]
            case "withdraw":
                tx = [chain.withdraw(person)]
            case "rotate":
                tx = [chain.rotate(number, make_voting_key(number, 1 + units % 3))]
            case "bond":
                tx = [chain.bond(person, number, units)]
        chain.add(chain.build(*tx).block)
