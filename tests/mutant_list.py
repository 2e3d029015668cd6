"""The mutants: one rule broken in each, and the checks that should notice.

consensus.md names the first ten; the rest are of the same kind in journal, engine, ledger, mempool and sync.
A check is a line for `assay` (simulated runs) or for pytest; the first that fails kills the mutant, so the
world's checkers come first and the examples of the unit tests last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands exactly once in `file`; `new` takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """`breaks`: the rule, in words."""

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    checks: tuple[str, ...]


CALM: Final = "simulate --runs 10 --jobs 1"
ROUGH: Final = "simulate --runs 60 --loss 0.1 --crashes 0.006 --blackouts 0.2 --faulty-ms 2400 --jobs 1"
TWO_FACED: Final = f"{ROUGH} --villain equivocator"
DAMAGED: Final = "simulate --runs 60 --crashes 0.01 --flipped-bits 0.6 --faulty-ms 3000 --jobs 1"
FORGED: Final = "simulate --runs 20 --villain forger --jobs 1"
FLOODED: Final = "simulate --runs 10 --villain flooder --jobs 1"
EPOCHS_CHANGE: Final = "simulate --runs 30 --epoch-blocks 3 --crashes 0.004 --faulty-ms 2000 --jobs 1"
EPOCHS_FORGED: Final = "simulate --runs 30 --epoch-blocks 3 --villain forger --faulty-ms 2000 --jobs 1"
WRONG_BLOCKS: Final = "simulate --runs 40 --villain invalid-proposer --crashes 0.004 --jobs 1"
RULES: Final = "pytest tests/unit/test_simplex_rules.py tests/unit/test_simplex_mistakes.py"
JOURNAL: Final = "pytest tests/unit/test_journal.py"
VOTES: Final = "pytest tests/unit/test_vote.py tests/unit/test_messages.py"
LEDGER: Final = "pytest tests/unit/test_ledger_transfers.py tests/unit/test_ledger_blocks.py tests/unit/test_ledger_laws.py"
MEMPOOL: Final = "pytest tests/unit/test_pending_line.py tests/unit/test_mempool.py tests/unit/test_pending.py tests/unit/test_receipts.py"
SYNC: Final = (
    "pytest tests/unit/test_catch_up_signatures.py tests/unit/test_catch_up.py tests/unit/test_chain.py"
)

VILLAINS: Final = "pytest tests/simulation/test_villains.py"
NODE_EPOCHS: Final = "pytest tests/unit/test_full_node_epochs.py"
OBSERVATION: Final = "pytest tests/unit/test_observation.py"

SIMPLEX, FOLLOWER, REPLICA = (f"consensus/bft/{name}.py" for name in ("simplex", "follower", "replica"))
WORK: Final = "consensus/ledger/work.py"
STAKING: Final = "pytest tests/unit/test_staking.py tests/unit/test_rewards.py tests/unit/test_accusations.py tests/unit/test_epochs.py"
STAKING_LAWS: Final = "pytest tests/unit/test_staking_laws.py"
EPOCH_EDGES: Final = "pytest tests/unit/test_simplex_epochs.py"
REFUSAL_HEADS: Final = "pytest tests/unit/test_refusal_heads.py"
REFUSAL_LOG: Final = "pytest tests/unit/test_refusal_keeper.py tests/unit/test_refusal_entries.py"
REFUSAL_KEEPER: Final = "node/duties/refusal_keeper.py"
LIGHT: Final = "pytest tests/unit/test_light.py tests/unit/test_record_proofs.py"
STAKE, BOND, UNBOND, WITHDRAW, ACCUSATION, REWARDS, SELECTION, EPOCHS = (
    f"consensus/ledger/{name}.py"
    for name in ("staking", "bond", "unbond", "withdraw", "accusation", "rewards", "selection", "epochs")
)
BEACON: Final = "pytest tests/unit/test_beacon.py"
ONIONS: Final = "pytest tests/unit/test_onion_keeper.py"
KEEPER: Final = "node/duties/onion_keeper.py"
VOTING_KEYS: Final = "pytest tests/unit/test_voting_keys.py"
ENGINE_HOST: Final = "pytest tests/unit/test_engine_host.py"
MODELS: Final = "pytest tests/unit/test_publication.py tests/unit/test_seating.py tests/unit/test_motions.py"
JUDGING, SEATING, PUBLICATION, KNOWN_MODELS, MOTION, APPROVAL = (
    f"consensus/ledger/{name}.py"
    for name in ("judging", "seating", "publication", "models", "motion", "approval")
)
LIGHT_CLIENT: Final = "consensus/light.py"
NODE_JOURNAL: Final = "node/engine/journal.py"
NODE_OBSERVATION: Final = "node/engine/observation.py"


NODES: Final = "simulate --full-nodes --runs 3 --faulty-ms 900 --jobs 1"
STAKES_WORLD: Final = "simulate --full-nodes --epoch-blocks 4 --runs 6 --jobs 1"
STAKES_RESTLESS: Final = "simulate --full-nodes --epoch-blocks 3 --unrest 1 --runs 8 --jobs 1"
LIARS_WORLD: Final = f"{STAKES_WORLD} --villain equivocator"


MODEL_LIFE: Final = f"{NODES} --model-switches 2"
MODEL_LIFE_AT_WORK: Final = f"{MODEL_LIFE} --clock workload"


def tell(story: str) -> str:
    """A scenario that comes with the package, as a check."""
    return f"simulate --scenario {story} --jobs 1"


def _mutant(name: str, breaks: str, checks: tuple[str, ...], *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, breaks, tuple(Edit(*edit) for edit in edits), checks)


ENGINE: Final = (
    _mutant(
        "finalize-after-nullify",
        "rule 5: never finalize what I nullified",
        (ROUGH, RULES),
        (
            SIMPLEX,
            "and (found.has_vote(NULLIFY, self._own) or found.has_vote(FINALIZE, self._own))",
            "and found.has_vote(FINALIZE, self._own)",
        ),
    ),
    _mutant(
        "nullify-after-finalize",
        "rule 4: never nullify what I finalized",
        (TWO_FACED, RULES),
        (
            SIMPLEX,
            "if found.has_vote(NULLIFY, self._own) or found.has_vote(FINALIZE, self._own):\n            return\n        self._set_retry()",
            "if found.has_vote(NULLIFY, self._own):\n            return\n        self._set_retry()",
        ),
    ),
    _mutant(
        "journal-forgotten",
        "a restart begins with what the journal holds",
        (ROUGH, RULES),
        (SIMPLEX, "restored = restore(records, ", "restored = restore((), "),
    ),
    _mutant(
        "notarize-unjudged",
        "rule 3: notarize only what was judged valid, its body durable",
        (CALM, RULES),
        (SIMPLEX, "if self._blocks.is_valid(block.hash) and self._may_sign(self._view):", "if self._may_sign(self._view):"),
    ),
    _mutant(
        "quorum-one-unit-low",
        "q = floor(2W/3) + 1",
        (TWO_FACED, VOTES),
        ("consensus/vote.py", 'put(self, "quorum", 2 * total // 3 + 1)', 'put(self, "quorum", 2 * total // 3)'),
    ),
    _mutant(
        "gap-unchecked",
        "rule 3: a nullification for every skipped view",
        (WRONG_BLOCKS, TWO_FACED, RULES),
        (REPLICA, "return self._get_nullified_from() <= block.parent_view + 1", "return True"),
    ),
    _mutant(
        "certificates-not-journaled",
        "rule 6: a certificate is persisted before it counts",
        (ROUGH, RULES),
        (FOLLOWER, "self._emit(Persist(certificate))\n", "pass\n"),
    ),
    _mutant(
        "own-votes-not-recounted",
        "after a restart the own tally is seeded anew",
        (ROUGH, RULES),
        (SIMPLEX, "            self._count_vote(vote)\n        if self._view < restored.view:", "            del vote\n        if self._view < restored.view:"),
    ),
    _mutant(
        "parent-below-final",
        "rule 3: no parent below my last final view",
        (WRONG_BLOCKS, TWO_FACED, RULES),
        (REPLICA, "elif block.parent_view < self._final_view:\n            return False", "elif block.parent_view < self._final_view:\n            return True"),
        (SIMPLEX, "if block.parent_view < self._final_view or is_forked or", "if is_forked or"),
    ),
    _mutant(
        "leader-off-by-one",
        "the schedule counts views from 1",
        (CALM, "pytest tests/unit/test_leader.py"),
        ("consensus/bft/leader.py", "divmod(view - 1, CHUNK_VIEWS)", "divmod(view, CHUNK_VIEWS)"),
    ),
    _mutant(
        "restored-view-is-the-last",
        "after a restart: the maximum over the records, not the last of them",
        (ROUGH, RULES),
        ("consensus/bft/restore.py", "view = max(reached, default=1)", "view = reached[-1] if reached else 1"),
    ),
    _mutant(
        "not-yet-is-invalid",
        "rule 10: a missing body is never invalid",
        (CALM, RULES),
        (FOLLOWER, "known.judgement = judgement  # Simplex rule 10", "known.judgement = judgement = Judgement.VALID if judgement is Judgement.VALID else Judgement.INVALID  #"),
    ),
    _mutant(
        "no-relay",
        "rule 6: a certificate is relayed on first receipt",
        (ROUGH, RULES),
        (FOLLOWER, "        self._relay(certificate)\n        for signer", "        for signer"),
    ),
    _mutant(
        "standstill-is-silent",
        "rule 8: when nothing becomes final, tell again",
        (tell("standstill-tells-again"), RULES),
        (SIMPLEX, "self._standstills += 1\n                self._resend()", "self._standstills += 1"),
    ),
    _mutant(
        "delta-never-grows",
        "timers grow with the views since the last finalization",
        (tell("slow-network"), RULES),
        ("consensus/bft/pacing.py", "min((view - final_view - 1) // GROWTH_VIEWS, 32)", "min(view - view, final_view - final_view)"),
    ),
    _mutant(
        "far-votes-kept",
        "rule 12: votes far ahead are dropped",
        (FLOODED, RULES),
        (FOLLOWER, "return  # Simplex rule 12", "pass"),
        (REPLICA, "if subject.view > self._view + VIEWS_AHEAD_MAX:\n                    return False", "pass"),
    ),
    _mutant(
        "blind-to-double-votes",
        "two notarizes or finalizes for different blocks are evidence",
        (tell("just-under-a-third"), RULES),
        ("consensus/bft/tally.py", "if held is not None and vote.signer not in found.accused and is_conflict(held, vote):", "if held is None and vote.signer in found.accused:"),
    ),
    _mutant(
        "signers-may-repeat",
        "a certificate's signers are distinct",
        (FORGED, VOTES),
        ("consensus/vote.py", "if any(low >= high for", "if any(low > high for"),
    ),
    _mutant(
        "forged-quorum-taken",
        "a certificate one unit short is refused",
        (FORGED, VOTES),
        ("consensus/vote.py", "if stake < validators.quorum:", "if stake < validators.quorum - 1:"),
    ),
    _mutant(
        "no-jump-ahead",
        "rule 1: a higher certificate jumps ahead",
        (tell("missed-certificates-are-asked-for"), ROUGH, RULES),
        (FOLLOWER, "if subject.view >= self._view:", "if subject.view == self._view:"),
    ),
    _mutant(
        "proposal-not-reused",
        "rule 2: after a restart a leader reuses the proposal it logged",
        (tell("leader-proposes-what-it-logged"), tell("second-block-after-a-crash"), RULES),
        (SIMPLEX, "self._tally.open(proposal.block.view).proposal = proposal\n", "pass\n"),
    ),
    _mutant(
        "retry-without-entry",
        "timers: a retry tells the certificate by which the view was entered, too",
        (tell("standstill-tells-again"), RULES),
        (FOLLOWER, "            if self._entry is not None:\n                self._relay(self._entry)\n        for effect", "        for effect"),
    ),
    _mutant(
        "requests-unanswered",
        "rule 9: who asks for a certificate gets it",
        (tell("missed-certificates-are-asked-for"), RULES),
        (FOLLOWER, "self._answer(message, sender)", "pass"),
    ),
    _mutant(
        "bodies-not-fetched",
        "rule 9: what a quorum certified is fetched",
        (TWO_FACED, RULES),
        (REPLICA, "effect = self._fetching.want_block(block_hash, view, self._schedule.get_leader(view))", "effect = None"),
    ),
    _mutant(
        "help-without-end",
        "who nullifies an old view is helped once a view: a replayer is no amplifier",
        (f"{VILLAINS} -k old_nullify", RULES),
        (FOLLOWER, "if sender in self._answered or len(", "if len("),
    ),
    _mutant(
        "own-vote-counted-twice",
        "a validator's vote counts once",
        (tell("own-vote-counts-once"), ROUGH, RULES),
        ("consensus/bft/tally.py", "            return None, self._accuse(found, vote)  # counted before: once is enough", "            pass"),
    ),
    _mutant(
        "relayed-to-all",
        "a certificate goes to a few: all to all is quadratic for every node",
        (RULES,),
        (FOLLOWER, "self._emit(Broadcast(certificate, RELAYS_MAX))", "self._emit(Broadcast(certificate))"),
    ),
    _mutant(
        "relayed-to-nobody",
        "rule 6: relaying, retry and standstill reach somebody",
        (ROUGH, RULES),
        (FOLLOWER, "self._emit(Broadcast(certificate, RELAYS_MAX))", "self._emit(Broadcast(certificate, 0))"),
    ),
    _mutant(
        "second-vote-not-needed",
        "a vote for another block than before is needed: it is evidence",
        (RULES,),
        (REPLICA, "return is_other and signer not in found.accused", "return False"),
    ),
    _mutant(
        "halt-forgotten",
        "rule 11: who halted because quorums contradict each other signs no more after a restart",
        (RULES,),
        (SIMPLEX, "if contradiction is not None:", "if contradiction is not None and not restored:"),
    ),
    _mutant(
        "contradiction-names-nobody",
        "certificates that contradict each other are evidence",
        (RULES,),
        (FOLLOWER, "for evidence in find_evidence(self._contradiction):", "for evidence in ():"),
    ),
    _mutant(
        "nullify-beside-finalize-passes",
        "nullify and finalize in one view are evidence",
        (f"{VILLAINS} -k contradicts", RULES),
        ("consensus/bft/tally.py", "NULLIFY: (FINALIZE,), FINALIZE: (FINALIZE, NULLIFY)", "NULLIFY: (), FINALIZE: (FINALIZE,)"),
    ),
)  # fmt: skip

JOURNAL_MUTANTS: Final = (
    _mutant(
        "sync-forgotten",
        "durable before audible",
        (ROUGH, JOURNAL),
        (NODE_JOURNAL, "        self._get_log().sync()\n        if self._size >", "        if self._size >"),
    ),
    _mutant(
        "checksums-ignored",
        "a damaged record is no record",
        (DAMAGED, JOURNAL),
        (NODE_JOURNAL, "if checksum != zlib.crc32(", "if checksum < 0 * zlib.crc32("),
    ),
    _mutant(
        "damage-passed-over",
        "damage before the tail: observe only",
        (DAMAGED, JOURNAL),
        (NODE_JOURNAL, 'scan.problem = scan.problem or f"a damaged record at byte {offset}, sound ones after it"', 'scan.problem = ""'),
    ),
    _mutant(
        "mark-ignored",
        "a journal missing beside a marked key: observe only",
        (tell("journal-deleted"), JOURNAL),
        (NODE_JOURNAL, "if not problem and mark is not None:", "if problem and mark is not None:"),
    ),
    _mutant(
        "compaction-drops-votes",
        "what lies above the last finalization survives compaction",
        (ROUGH, JOURNAL),
        (NODE_JOURNAL, "frames.extend(self._live[place])", "frames.extend(self._live[place][1:])"),
    ),
    _mutant(
        "observer-signs-at-once",
        "an observer waits for a quorum of others",
        (tell("observer-waits-for-a-quorum"), DAMAGED, RULES),
        (REPLICA, "            and self._observe_until is not None\n            and view > self._observe_until\n", ""),
    ),
    _mutant(
        "torn-tail-is-damage",
        "a write that was never finished is cut off, and harmless",
        (ROUGH, JOURNAL),
        (NODE_JOURNAL, "scan.is_torn = True  #", 'scan.problem = "torn"  #'),
    ),
    _mutant(
        "mark-never-made",
        "the first vote leaves a mark beside the key",
        (tell("journal-deleted"), JOURNAL),
        (NODE_JOURNAL, "                self._mark()\n", "                pass\n"),
    ),
    _mutant(
        "permission-not-durable",
        "that signing is safe again is durable before anything is signed",
        (DAMAGED, JOURNAL),
        (NODE_JOURNAL, "        self._write(_pack_state(self._state))\n        self.sync()", "        self.sync()"),
    ),
    _mutant(
        "observer-ends-by-restarting",
        "a damaged journal is remembered as such over restarts",
        (DAMAGED, JOURNAL),
        (NODE_JOURNAL, "observe_until_view = None if problem else (state.observe_until_view if state else 0)", "observe_until_view = 0"),
    ),
    _mutant(
        "one-is-a-quorum",
        "an observer signs again when a quorum of others went on",
        (OBSERVATION,),
        (NODE_OBSERVATION, "if stake >= self._validators.quorum:", "if stake > 0:"),
    ),
    _mutant(
        "old-views-are-news",
        "an observer counts views that nobody had reached when it began to watch",
        (OBSERVATION,),
        (NODE_OBSERVATION, "        if subject.view <= self._first_view:\n            return\n", ""),
    ),
    _mutant(
        "signs-at-the-highest-view",
        "an observer signs above the highest view that a quorum told, not in it",
        (OBSERVATION,),
        (NODE_OBSERVATION, "max(self._views.values()) + 1", "max(self._views.values()) - 1"),
    ),
    _mutant(
        "own-lost-vote-is-news",
        "a finalization with the lost journal's own vote in it says nothing to an observer",
        (DAMAGED, OBSERVATION),
        (NODE_OBSERVATION, "if self._first_view is None or self._own_index in certificate.signers:", "if self._first_view is None:"),
    ),
)  # fmt: skip

LEDGER_MUTANTS: Final = (
    _mutant("nonce-used-twice", "a nonce is used once", (NODES, LEDGER,), (WORK, "self.nonce_window[sender] = window | 1 << behind", "self.nonce_window[sender] = window")),
    _mutant("balance-unchecked", "nobody spends what they do not have", (LEDGER,), (WORK, "if self.balance[sender] < cost:", "if self.balance[sender] < 0:")),
    _mutant("fee-not-charged", "money is conserved: fees come from the sender", (NODES, LEDGER,), (WORK, "self.balance[sender] -= tx.amount + tx.fee", "self.balance[sender] -= tx.amount")),
    _mutant("fees-lost", "money is conserved: fees go to the proposer", (NODES, LEDGER,), (WORK, "self.balance[self.index[self.proposer]] += self.fees", "self.balance[self.index[self.proposer]] += 0")),
    _mutant("score-believed", "a block's scores are recomputed", (tell("wrong-score-by-one-unit"), LEDGER, "pytest tests/unit/test_ledger_judging.py"), ("consensus/ledger/block_checks.py", "zip(block.scores, scores, strict=True)):\n        if told != recomputed:", "zip(block.scores, scores, strict=True)):\n        if told < 0 > recomputed:")),
    _mutant("refused-included", "a block with a refused transaction is invalid", (LEDGER, "pytest tests/unit/test_ledger_judging.py"), ("consensus/ledger/block_checks.py", "if told == scoring.REFUSE:", "if told > scoring.REFUSE:")),
    _mutant("time-runs-back", "a block is not before its parent", (LEDGER,), ("consensus/ledger/block_checks.py", "if timestamp_ms < parent.timestamp_ms:", "if timestamp_ms < 0:")),
)  # fmt: skip

ROOMS: Final = (
    _mutant("final-taken-again", "a mempool remembers what is final", (MEMPOOL,), ("node/mempool/mempool.py", "if transaction_id in self._finals:", "if transaction_id in ():")),
    _mutant("block-overfilled", "a proposer's block keeps its bound on bytes", (MEMPOOL, "pytest tests/unit/test_proposer.py"), ("node/mempool/mempool.py", "bytes_max -= entry.size_bytes", "bytes_max -= 0")),
    _mutant("cost-not-released", "a line's pending cost falls when one leaves", (MEMPOOL,), ("node/mempool/lines.py", "self.cost -= entry.cost", "self.cost -= 0")),
    _mutant("sync-believes-links", "blocks that are caught up link to our final one", (SYNC, "pytest tests/unit/test_full_nodes.py"), ("node/blocks/catch_up.py", "if not is_link or (header.height, header.epoch) != (height, epoch):", "if (header.height, header.epoch) != (height, epoch):")),
    _mutant("sync-believes-certificates", "what is caught up was signed by a quorum", (tell("branch-signed-by-one"), SYNC, "pytest tests/unit/test_full_nodes.py"), ("node/blocks/catch_up.py", "        self._check_certificate(certificate, validators)\n        return certificate", "        return certificate")),
    _mutant("sync-believes-signatures", "transactions that are caught up were signed", (SYNC, "pytest tests/unit/test_full_nodes.py"), ("node/blocks/catch_up.py", "if not all(answers):", "if not any(answers) and answers[1:]:")),
    _mutant("body-durable-when-final", "a block's body is durable before its vote, not when it is final", (tell("body-durable-before-its-vote"),), ("node/blocks/judge.py", "            self._store.put_block(block)\n            self._store.sync()\n", "            self._store.put_block(block)\n")),
    _mutant("journal-dropped-with-the-store", "a journal newer than the store binds", (tell("store-deleted-journal-kept"),), ("node/recovery.py", "recovered.unfinal, records)", "recovered.unfinal, records if store.finalized_height else ())")),
    _mutant(
        "liar-asked-for-ever",
        "a body that its source cannot complete is asked of others",
        (tell("two-bodies-for-one-block"),),
        ("node/blocks/body_fetcher.py", "            self._give_up_compact(compact, work)\n        work.arrived.set()", "            pass\n        work.arrived.set()"),
        ("node/blocks/body_fetcher.py", "            if attempt == 0 and not work.asked and work.questions < QUESTIONS_MAX:\n", "            if attempt >= 0:\n"),
        ("node/blocks/body_fetcher.py", "if attempt > 0 or block_hash not in self._compact:", "if block_hash not in self._compact:"),
    ),
    _mutant("abandoned-kept", "what lies beside the final chain is forgotten", (SYNC,), ("node/blocks/chain.py", "        self._forget_abandoned()\n        return", "        return")),
    _mutant("views-without-epochs", "views of different epochs are compared with their epochs", (NODE_EPOCHS,), ("node/blocks/chain.py", "return epoch < self.epoch or (epoch, view) <= (final.epoch, final.view)", "return view <= final.view")),
    _mutant("epoch-unentered", "nothing is signed again below an epoch that was entered", (JOURNAL,), (NODE_JOURNAL, "if state.observe_until_view is None or epoch < state.epoch:", "if state.observe_until_view is None:")),
    _mutant("epoch-drops-its-own", "what binds in an epoch survives entering it", (JOURNAL,), (NODE_JOURNAL, "if place[0] < epoch]", "if place[0] <= epoch]")),
    _mutant("vigil-too-short", "an epoch that somebody had reached before says nothing to who lost its journal", (OBSERVATION,), (NODE_OBSERVATION, "epoch > self._reached", "epoch >= self._reached")),
    _mutant("held-without-bound", "what a peer says of the next epoch has a bound", ("pytest tests/unit/test_held_frames.py",), ("node/engine/held_frames.py", "if len(frames) < PEER_FRAMES_MAX and held_bytes", "if held_bytes")),
    _mutant("sets-mixed-up", "what an epoch's validators signed is checked with its own set", (NODE_EPOCHS,), ("node/blocks/chain.py", "        found = self._final_view.find_set(epoch)\n        return None if found is None else found.validators", "        found = self._final_view.find_set(0)\n        return None if found is None else found.validators")),
    _mutant("batch-across-epochs", "final blocks that are served end with their epoch", (NODE_EPOCHS,), ("node/blocks/serving.py", "(last if boundary is None else min(last, boundary)) + 1", "last + 1")),
)  # fmt: skip

STAKE_MUTANTS: Final = (
    _mutant("minting-rounds-up", "rounding never makes money", (STAKING_LAWS,), (STAKE, "return amount * shares // tokens if shares else amount", "return -(-amount * shares // tokens) if shares else amount")),
    _mutant("redeeming-rounds-down", "what leaves costs the shares that it is worth", (STAKING_LAWS,), (STAKE, "return -(-amount * shares // tokens)", "return amount * shares // tokens")),
    _mutant("bond-not-paid", "what is bonded leaves the balances", (STAKING,), (BOND, "work.balance[work.index[operator]] -= tx.amount", "work.balance[work.index[operator]] -= 0")),
    _mutant("proof-of-possession-skipped", "nobody votes with another's key", (STAKING,), (STAKE, "if not crypto.verify(key, compute_key_digest(chain_id, operator), proof):", "if len(proof) != 64:")),
    _mutant("rank-forgotten", "the richest candidates sit", (STAKING, STAKING_LAWS), (STAKE, "        if old_rank is not None:\n            records = records.remove(old_rank)\n", "")),
    _mutant("withdrawn-early", "what leaves is out after the period", (STAKING,), (WITHDRAW, "if claim.epoch + work.parameters.unbonding_epochs > work.epoch:", "if claim.epoch + work.parameters.unbonding_epochs > work.epoch + 1:")),
    _mutant("released-by-a-rising-time", "effects depend on nothing that a later transaction of the block changes", (STAKING,), (WITHDRAW, "now_ms = work.parent.timestamp_ms", "now_ms = work.timestamp_ms")),
    _mutant("withdrawn-twice", "a claim is paid once", (STAKING,), (WITHDRAW, "records = staking.put_claim(records, tx.sender, replace(claim, amount=0))", "records = staking.put_claim(records, tx.sender, claim)")),
    _mutant("unbonding-spared", "what is leaving is slashed too", (STAKING, STAKING_LAWS), (ACCUSATION, "if unbonding is not None:", "if unbonding is None:")),
    _mutant("one-epoch-spared", "who left in the epoch before the lie still voted in it", (STAKING, STAKING_LAWS), (ACCUSATION, "range(max(0, offence_epoch - 1), epoch + 1)", "range(offence_epoch, epoch + 1)")),
    _mutant("innocent-slashed", "who had left before the lie was possible is spared", (STAKING,), (ACCUSATION, "range(max(0, offence_epoch - 1), epoch + 1)", "range(max(0, offence_epoch - 2), epoch + 1)")),
    _mutant("slashed-money-kept", "what is slashed is burned", (STAKING,), (ACCUSATION, "return supply.burn(records, burned)", "return supply.burn(records, 0)")),
    _mutant("punished-twice", "one lie, one punishment", (STAKING,), (ACCUSATION, ".status == staking.TOMBSTONED:", ".status == 9:")),
    _mutant("evidence-unchecked", "evidence is proof", (STAKING,), (ACCUSATION, "        vote.check_evidence(found, epoch_set.validators, work.chain_id, crypto.verify)\n", "")),
    _mutant("evidence-stale", "evidence has an age limit", (STAKING,), (ACCUSATION, "if work.epoch - epoch > work.parameters.evidence_epochs or epoch_set is None:", "if epoch_set is None and epoch < 0:")),
    _mutant("cap-on-arrivals-off", "no more than the cap joins a set", (STAKING,), (SELECTION, "gain if total <= churn else gain * churn // total", "gain")),
    _mutant("cap-on-leaving-off", "no more than the cap leaves a set", (STAKING,), (UNBOND, "        _check_churn(work, found.charge)\n", "")),
    _mutant("jail-without-cap", "absence takes no more out of a set than the cap", (STAKING,), (SELECTION, "leaving = min(room, weight)", "leaving = weight")),
    _mutant("weight-above-stake", "nobody votes with more than it has", (STAKING, STAKING_LAWS), (SELECTION, "weight = min(validator.stake, stake.tokens)", "weight = validator.stake")),
    _mutant("set-not-ahead", "a set is fixed one epoch ahead", (STAKING,), (REWARDS, "records = epochs.put_set(records, epoch + 2, chosen)", "records = epochs.put_set(records, epoch + 1, chosen)")),
    _mutant("absent-paid", "who did not sign earns nothing", (STAKING,), (REWARDS, "paid = reward * sum(stakes) // validators.total", "paid = reward")),
    _mutant("issue-unbooked", "what is issued is counted", (STAKING,), (REWARDS, "issued=money.issued + max(0, paid - work.fees),", "issued=money.issued,")),
    _mutant("supply-uncapped", "the supply never passes 2^53 - 1", (STAKING,), (REWARDS, "min(parameters.reward_units, money.issuable)", "parameters.reward_units")),
    _mutant("absence-forgiven", "who is absent is jailed", (STAKING,), (REWARDS, "if is_absent and stake.status == staking.BONDED:", "if is_absent and stake.status == staking.JAILED:")),
    _mutant("liar-rewarded", "a liar's rewards are burned", (STAKING,), (REWARDS, "return supply.burn(records, reward)", "return records")),
    _mutant("tail-with-transactions", "a tail is empty", (STAKING,), ("consensus/ledger/block_checks.py", "        _check_tail(block, view)\n", "        pass\n")),
    _mutant("tail-committed", "a tail is never committed", (STAKING,), ("consensus/ledger/state.py", "if delta.is_tail:", "if delta.is_tail and not self.account_count:")),
    _mutant("tail-rises", "past the boundary heights stay", (EPOCHS_CHANGE, EPOCH_EDGES), (REPLICA, "return height if self._config.height_max is None else min(height, self._config.height_max)", "return height")),
    _mutant("signs-past-the-end", "nothing is signed once the boundary is final", (EPOCH_EDGES,), (REPLICA, "return self.is_ended or is_unknown", "return is_unknown")),
    _mutant("signs-not-knowing-the-end", "while the final block is unknown, nothing is signed", (EPOCH_EDGES,), (REPLICA, "return self.is_ended or is_unknown", "return self.is_ended")),
    _mutant("turns-begin-anew", "turns go on from epoch to epoch", (EPOCHS_CHANGE, EPOCH_EDGES), ("consensus/bft/leader.py", "place = (start + self._offset) % self.period", "place = start % self.period")),
    _mutant("turn-lost-between-epochs", "the next epoch begins with the turn after the last one's", (EPOCHS_CHANGE, EPOCH_EDGES), ("consensus/bft/leader.py", "return epoch * epoch_blocks", "return epoch * (epoch_blocks + 1)")),
    _mutant("epoch-never-ends", "a final boundary block ends its epoch", (EPOCHS_CHANGE, EPOCH_EDGES), (REPLICA, "known.ref.height >= height_max", "known.ref.height > height_max")),
    _mutant("old-epoch-retries", "an epoch that ended asks for nothing more", (EPOCH_EDGES,), (SIMPLEX, "if self.is_ended and timer is not Timer.STANDSTILL:", "if self._is_halted and timer is not Timer.STANDSTILL:")),
    _mutant("other-epochs-bind", "after a restart only records of its epoch bind an engine", (EPOCHS_CHANGE, EPOCH_EDGES), ("consensus/bft/restore.py", "                if record.subject.epoch == epoch:\n                    certificates", "                if record.subject.epoch <= epoch:\n                    certificates")),
    _mutant("digest-without-epoch", "a signature holds in its own epoch alone", (EPOCHS_FORGED, VOTES), ("consensus/vote.py", "body = codec.encode((self.epoch, self.kind, self.view, self.block_hash))", "body = codec.encode((0, self.kind, self.view, self.block_hash))")),
    _mutant("conflict-across-epochs", "votes of different epochs contradict nothing", (VOTES, "pytest tests/unit/test_evidence.py"), ("consensus/vote.py", "if first.signer != second.signer or (a.epoch, a.view) != (b.epoch, b.view):", "if first.signer != second.signer or a.view != b.view:")),
    _mutant("other-epochs-votes-count", "a vote counts in its own epoch alone", (EPOCH_EDGES,), (FOLLOWER, "if subject.epoch == self._config.epoch:\n                    self._take_vote", "if subject.epoch >= 0:\n                    self._take_vote")),
    _mutant("other-epochs-certificates-count", "a certificate counts in its own epoch alone", (EPOCH_EDGES,), (FOLLOWER, "if subject.epoch != self._config.epoch or subject.view < self._final_view:\n            return", "if subject.view < self._final_view:\n            return")),
    _mutant("later-epochs-dropped", "the journal's records of later epochs than the store's bind", (JOURNAL,), (NODE_JOURNAL, "if frame_epoch < epoch:", "if frame_epoch != epoch:")),
    _mutant("tail-names-nothing", "a tail names its boundary block", (BEACON,), ("consensus/ledger/block_checks.py", "if block.header.reveal != mark:", "if block.header.reveal != mark and not block.header.reveal:")),
    _mutant("link-by-a-layer", "a tail has its boundary block's state, not only its hash", (LIGHT,), ("consensus/block.py", "named == (below.height, below.state_root, below.history_root, 0, below.hash)", "header.reveal == below.hash")),
    _mutant("every-tail-shown", "one tail proves the boundary block final", (NODE_EPOCHS,), ("node/blocks/finality.py", "tails[-1:]", "tails")),
    _mutant("commits-while-behind", "who is behind commits to nothing", (ONIONS,), (KEEPER, "if tip and not self._is_behind() and", "if tip and")),
    _mutant("onion-used-twice", "an era's onion is committed to once", (ONIONS,), (KEEPER, "onion.is_layer(found.tip) or onion.is_layer(found.pending)", "onion.is_layer(found.pending)")),
    _mutant("layer-below-the-pending-one", "a commitment counts two epochs on", (ONIONS, BEACON), ("consensus/ledger/beacon.py", "return self.pending if self.pending and epoch >= self.since else self.tip", "return self.pending or self.tip")),
    _mutant("newest-key-votes", "in each epoch the key votes that its set names", (VOTING_KEYS,), ("node/engine/voting_keys.py", "(key for key in own if validators.get_index(key.public_key) is not None)", "reversed(own)")),
    _mutant("voice-of-an-ended-epoch", "nothing is heard of an epoch that is over", (ENGINE_HOST,), ("node/engine/host.py", "return self.is_over and isinstance(message, (vote.Vote, Proposal))", "return False")),
    _mutant("head-of-no-log", "the empty root is the empty log's alone", (REFUSAL_HEADS,), ("consensus/ledger/block_checks.py", "    refusal.check_head(refusal.get_head(header))\n", "")),
    _mutant("tail-with-head", "a tail commits to no log of refusals", (REFUSAL_HEADS,), ("consensus/ledger/block_checks.py", "    if block.header.refusal_count:\n", "    if block.header.refusal_count > 2**53:\n")),
    _mutant("head-before-its-log", "a log is durable before a block commits to it", (REFUSAL_LOG,), (REFUSAL_KEEPER, "            self._begin_anew(last)\n        self.log.sync()", "            self._begin_anew(last)")),
    _mutant("loss-unsaid", "a log that was lost says so", (REFUSAL_LOG,), (REFUSAL_KEEPER, "        if last is not None and not self._follows(last):\n", "        if last is not None and not self.own_key:\n")),
    _mutant("unfinal-heads-forgotten", "an own block that is not final yet binds, too", (REFUSAL_LOG,), (REFUSAL_KEEPER, "next((header for header in branch if self._is_own(header)), self._own)", "self._own")),
    _mutant("logged-twice", "one entry a transaction and set of modules", (REFUSAL_LOG,), (REFUSAL_KEEPER, "is not None:\n                return\n            if not self._take_token", "is None and False:\n                return\n            if not self._take_token")),
    _mutant("loss-believed", "only the block that was lost excuses", (REFUSAL_LOG,), ("consensus/refusal.py", "and (first.lost, first.block_hash) == (old, earlier.hash)", "and first.height > 0")),
    _mutant("skips-without-overlap", "a third of the trusted stake must have signed", (LIGHT,), (LIGHT_CLIENT, "if 3 * overlap <= trusted.total:", "if 3 * overlap < 0:")),
    _mutant("a-third-is-enough", "more than a third", (LIGHT,), (LIGHT_CLIENT, "if 3 * overlap <= trusted.total:", "if 3 * overlap < trusted.total:")),
    _mutant("trusts-for-ever", "a checkpoint has an age limit", (LIGHT,), (LIGHT_CLIENT, "if age_ms >= settings.trusting_ms:", "if age_ms >= 2**60:")),
    _mutant("world-commission-to-the-pool", "commission is the operator's own", (STAKES_WORLD,), (REWARDS, "commission = reward * stake.commission_bp // WHOLE_BP if stake.shares else reward", "commission = 0 if stake.shares else reward")),
    _mutant("world-unjailed-at-once", "who was absent stays out for a while", (STAKES_RESTLESS,), (REWARDS, "jailed_until = epoch + 1 + parameters.jail_epochs", "jailed_until = epoch + parameters.jail_epochs")),
    _mutant("world-leavers-spared", "a liar's leaving stake is slashed with the rest, and it is out", (LIARS_WORLD,), (ACCUSATION, "status=staking.TOMBSTONED, jailed_until=0", "status=staking.JAILED, jailed_until=0")),
    _mutant("world-nobody-accuses", "who saw a lie brings it to the chain", (LIARS_WORLD.replace("--runs 6", "--runs 1"),), ("node/duties/accuser.py", "        if (epoch, signer) not in self._cases and len(self._cases) < WAITING_MAX:", "        if len(self._cases) > WAITING_MAX:")),
    _mutant("absence-unproven", "an absent record is shown to be absent", (LIGHT,), ("consensus/ledger/record_proofs.py", "if child != (node or rec.EMPTY_ROOT):", "if node and child != node:")),
)  # fmt: skip

REPORTS: Final = ("pytest tests/unit/test_report_cases.py", "pytest tests/unit/test_report_disputes.py")
CASES, DISPUTE, REPORTERS, RETRACTION, REGISTRATION, REPORT_KIND = (
    f"consensus/ledger/{name}.py"
    for name in ("cases", "dispute", "reporters", "retraction", "registration", "report")
)
REPORT_MUTANTS: Final = (
    _mutant("told-too-soon", "the modules are told when enough reporters agree", REPORTS, (CASES, "case.standing >= parameters.reports_min", "case.standing >= 1")),
    _mutant("told-for-ever", "the modules are told when too few reports stand", REPORTS, (CASES, "    elif not is_enough and case.told_height:", "    elif case.finding == FALSE and case.told_height:")),
    _mutant("memo-lost", "what a module noted is given back", REPORTS, ("consensus/ledger/columns.py", "    if not any(report.is_withdrawn for report in reports):", "    if reports:")),
    _mutant("note-of-other-rows", "what was noted belongs to the rows it was noted with", ("pytest tests/unit/test_ledger_judging.py",), ("consensus/ledger/columns.py", "report.memos.get((seat.place.start, seat.generation), 0)", "report.memos.get((seat.place.start, 0), 0)")),
    _mutant("pair-ignored", "the same two accounts count once in a period", REPORTS, (CASES, "is_repeated = not _take_pair(work, reported)", "is_repeated = False")),
    _mutant("pair-kept", "what is taken back makes room for the next", REPORTS, (CASES, "    if work.records.get(key) == reported.id:", "    if work.records.get(key) is None:")),
    _mutant("filed-again", "what was taken back is not filed again", REPORTS, (REPORT_KIND, "if cases.find_filing(work.records, key, cases.WITHDRAWN, tx.sender) is not None:", "if tx.sender == tx.receiver:")),
    _mutant("taken-back-by-anybody", "only the reporter takes a report back", REPORTS, (RETRACTION, "cases.find_filing(work.records, key, cases.STANDING, tx.sender)\n        if filing is None", "next(cases.walk_filings(work.records, key), None)\n        if filing is None")),
    _mutant("taken-back-in-its-block", "a memo is known before it is asked for", REPORTS, (RETRACTION, "        if cases.is_just_told(work, case):", "        if not case.standing:")),
    _mutant("taken-back-under-dispute", "a lie that is found out is not taken back", REPORTS, (RETRACTION, "        dispute.check_undisputed(work, key)\n", "")),
    _mutant("taken-back-late", "a report can be taken back for a time", REPORTS, (RETRACTION, "if work.timestamp_ms > filing.filed_ms + contest_ms:", "if not contest_ms:")),
    _mutant("bond-kept", "a false report costs the bond", REPORTS, (REPORTERS, "return supply.burn(records, reporter.bond_units)", "return supply.burn(records, 0)")),
    _mutant("struck-reports", "who reported falsely reports no more", REPORTS, (REPORTERS, "        if reporter.status == STRUCK:", "        if reporter.status == 9:")),
    _mutant("leaver-reports", "who leaves reports no more", REPORTS, (REPORTERS, "            if reporter.release_ms:\n", "            if reporter.status == STRUCK:\n")),
    _mutant("bond-not-taken", "a reporter pays its bond", REPORTS, (REGISTRATION, "work.balance[work.index[tx.sender]] -= tx.amount", "work.balance[work.index[tx.sender]] -= 0")),
    _mutant("bond-out-early", "a bond waits until nothing can come", REPORTS, (REGISTRATION, "return latest_ms + parameters.report_contest_ms + parameters.dispute_vote_ms", "return latest_ms + parameters.report_contest_ms")),
    _mutant("half-is-enough", "more than half of the stake decides", REPORTS, (DISPUTE, "return 2 * self.false_units > self.total_units", "return 2 * self.false_units >= self.total_units")),
    _mutant("strangers-dispute", "the accused's side disputes", REPORTS, (DISPUTE, "        if tx.sender not in (reported.sender, reported.receiver):", "        if not tx.sender:")),
    _mutant("strangers-vote", "validators vote", REPORTS, (DISPUTE, "        if not epochs.get_set(work.records, work.epoch).get_stake(tx.sender):", "        if not tx.sender:")),
    _mutant("votes-twice", "a validator votes once", REPORTS, (DISPUTE, "        if vote is not None and int.from_bytes(vote[:8], \"big\") == dispute.opened_ms:", "        if vote == b\"\":")),
    _mutant("old-votes-count", "votes of a dispute that lapsed do not count in the next", REPORTS, (DISPUTE, "        if int.from_bytes(value[:8], \"big\") == dispute.opened_ms:\n            verdicts", "        if value:\n            verdicts")),
    _mutant("deposit-for-nothing", "a deposit is money that leaves the balance", REPORTS, (DISPUTE, "work.balance[work.index[tx.receiver]] -= tx.amount", "work.balance[work.index[tx.receiver]] -= 0")),
    _mutant("lost-deposit-paid", "who lost a dispute does not get the deposit back", REPORTS, (DISPUTE, "supply.burn(_remove(work.records, key, dispute), dispute.deposit_units)", "_remove(work.records, key, dispute)")),
    _mutant("old-filings-struck", "a report beyond contest is not punished", REPORTS, (DISPUTE, "        if filing.filed_ms >= contestable_ms:", "        if filing.filed_ms >= 0:")),
    _mutant("vote-without-end", "a vote ends", REPORTS, (DISPUTE, "        if work.timestamp_ms > end_ms:\n            raise Rejected(f\"the vote ended", "        if end_ms < 0:\n            raise Rejected(f\"the vote ended")),
    _mutant("stain-kept", "rows forget a report that is taken back", ("pytest tests/unit/test_report_rows.py",), ("ml/rings.py", "max(stains - (memo & STAINED > 0), 0)", "max(stains, 0)")),
)  # fmt: skip

MODEL_MUTANTS: Final = (
    _mutant("kept-by-a-rising-time", "effects depend on nothing that a later transaction of the block changes", (MODEL_LIFE_AT_WORK, MODELS), (PUBLICATION, "expires_ms = work.compute_time_ms(tx) +", "expires_ms = work.timestamp_ms +")),
    _mutant("switch-one-block-late", "a change holds from its height on", (MODEL_LIFE, MODELS), (MOTION, "prefix = rec.NAMESPACE_SCHEDULE + (height + 1).to_bytes(8, \"big\")", "prefix = rec.NAMESPACE_SCHEDULE + height.to_bytes(8, \"big\")")),
    _mutant("approvals-without-stake", "only operators of the epoch's set approve", (MODELS,), (APPROVAL, "if not epochs.get_set(work.records, work.epoch).get_stake(tx.sender):", "if not tx.sender:")),
    _mutant("two-thirds-decide", "more than two thirds", (MODELS,), (MOTION, "3 * approved > 2 * total", "3 * approved >= 2 * total")),
    _mutant("half-decides", "more than two thirds", (MODEL_LIFE, MODELS), (MOTION, "3 * approved > 2 * total", "2 * approved > total")),
    _mutant("former-stake-counts", "approvals count by the set of the last one's epoch", (MODELS,), (MOTION, "approved = sum(epoch_set.get_stake(operator) for operator in approvers)", "approved = tally.approved_units + epoch_set.get_stake(approver)")),
    _mutant("approved-twice", "one approval each", (MODELS,), (APPROVAL, "if tx.sender in tally.approvers:", "if tx.sender in ():")),
    _mutant("no-notice", "what is decided is known some blocks before", (MODEL_LIFE, MODELS), (APPROVAL, "if not first <= proposed.height <= last:", "if not proposed.height <= last:")),
    _mutant("motions-kept", "a motion is forgotten at its height", (MODELS,), (MOTION, "if int.from_bytes(key[1:9], \"big\") > height + 1:", "if int.from_bytes(key[1:9], \"big\") > 0:")),
    _mutant("decided-alike", "at its time a decision must still fit", (MODELS,), (SEATING, "    if in_place_of and predecessor is None:\n        return seating, Outcome.NOT_SEATED\n", "")),
    _mutant("others-rows-read", "rows of another generation read as zeros", (MODELS,), (JUDGING, "        if self.generation:\n            # No row", "        if self.generation < 0:\n            # No row")),
    _mutant("rows-untagged", "a row that is written gets its slot's generation", (MODELS,), (JUDGING, "            rows[:, self.place.start - 1] = self.generation\n", "            pass\n")),
    _mutant("generation-stays", "who reads other rows begins a generation", (MODELS,), (SEATING, "generation=slot.generation + 1", "generation=slot.generation")),
    _mutant("rows-thrown-away", "who reads the same rows goes on with them", (MODELS,), (SEATING, "return slots, predecessor.slot", "pass")),
    _mutant("room-overrun", "rows fit the room", (MODELS,), (SEATING, "if seating.size_bytes + need > room_bytes or len(slots) == SLOTS_MAX:", "if len(slots) == SLOTS_MAX:")),
    _mutant("watcher-counts", "what one of weight nothing says does not count", (MODELS,), (JUDGING, "        if seat.weight:\n            opinions.append", "        if seat:\n            opinions.append")),
    _mutant("weights-ignored", "a weighted score weighs", (MODELS,), (JUDGING, "score += weight * opinion.verdicts.score", "score += opinion.verdicts.score")),
    _mutant("digest-unchecked", "a model computes the digest that was announced", (MODELS,), (PUBLICATION, "if module.digest != manifest.digest:", "if not manifest.digest:")),
    _mutant("artifact-unchecked", "an artifact is what was announced", (MODELS,), (PUBLICATION, "            _check_hash(work, publication_id, chunk)\n", "            pass\n")),
    _mutant("chunks-for-nothing", "every byte of an artifact is paid for", (MODELS,), (PUBLICATION, "if tx.fee < fee_min:", "if tx.fee < 0:")),
    _mutant("publications-kept", "what nobody approved is forgotten", (MODELS,), (KNOWN_MODELS, "if int.from_bytes(key[1:9], \"big\") >= now_ms:", "if now_ms >= 0:")),
    _mutant("approved-forgotten", "what was approved stays", (MODELS,), (KNOWN_MODELS, "records = put_publication(records, model.publication, replace(publication, expires_ms=0))", "pass")),
)  # fmt: skip

MUTANTS: Final = {
    mutant.name: mutant
    for mutant in (
        *ENGINE,
        *JOURNAL_MUTANTS,
        *LEDGER_MUTANTS,
        *STAKE_MUTANTS,
        *REPORT_MUTANTS,
        *MODEL_MUTANTS,
        *ROOMS,
    )
}
