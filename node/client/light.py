"""The light client on the network: fetches from nodes that nobody trusts what `consensus/light.py` checks.

Trust begins with genesis (a file of one's own) or with a checkpoint, HASH@HEIGHT, that somebody trusted
gave. A checkpoint alone is enough: genesis, which a node may serve, is block 0's parent, and the checkpoint's
history commits to block 0.

Errors: what a node shows and does not hold is Rejected (code "checkpoint_age": the user's own), two final
blocks that exclude each other are `forks.Fork`. On a workload's clock age cannot be told: no limit is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from consensus import codec, crypto, light
from consensus.block import Header
from consensus.errors import Fault, Rejected
from consensus.forks import Fork
from consensus.genesis import Genesis, read_genesis
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from consensus.ledger.seating import Seating, decode_seating
from consensus.ledger.state import Account
from consensus.light import LightSettings, TransactionProof, Trust, Update
from consensus.parameters import CLOCK_WORKLOAD
from node.api import light_forms
from node.api.json_reading import get_field, read_hex, read_int
from node.api.kind_forms import form_evidence
from node.client.node_client import NodeClient
from node.clock import Clock

MODULES_KEY: Final = rec.NAMESPACE_PARAMETER + rec.PARAMETER_MODULES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A block that somebody trusted named."""

    block_hash: bytes
    height: int


def parse_checkpoint(text: str) -> Checkpoint:
    """HASH@HEIGHT. Raises Rejected."""
    block_hash, at, height = text.partition("@")
    field, mend = "--checkpoint", "write it like 0x…@1200"
    if not at or not (height.isascii() and height.isdecimal() and len(height) <= 16):
        raise Rejected("must be HASH@HEIGHT", field=field, mend=mend)
    return Checkpoint(
        read_hex(block_hash, field, crypto.HASH_BYTES), codec.check_int(int(height), field, low=1)
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """An update as one node shows it, and who operates the validators, by its word."""

    update: Update
    operators: tuple[bytes, ...]


class LightNode:
    """One node's answers, read and not believed."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        return self._client.url

    async def get(self, path: str, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return await self._client.get_json(path, query)

    async def fetch_genesis(self) -> Genesis:
        return read_genesis(await self._client.get_text("/v1/genesis"))

    async def fetch_start(self) -> tuple[Header, EpochSet, EpochSet]:
        """Block 0's header, which nobody signed, and the sets of the first two epochs."""
        document = await self.get("/v1/light/updates/0")
        return (light_forms.read_header(get_field(document, "header")), *_read_sets(document))

    async def fetch(self, height: int | None) -> Shown:
        """The final block of this height (None: the last one) with its sets. Raises Rejected."""
        document = await self.get(f"/v1/light/updates/{'finalized' if height is None else height}")
        final = light_forms.read_final(document)
        if height is not None and final.header.height != height:
            raise Rejected(f"is {final.header.height}, {height} was asked for", field="header.height")
        validators, next_validators = _read_sets(document)
        update = Update(final, validators.validators, next_validators.validators)
        return Shown(update, validators.operators)

    async def fetch_history(self, height: int, anchor: int) -> tuple[Header, tuple[bytes, ...]]:
        document = await self.get(f"/v1/light/history/{height}", {"anchor": anchor})
        siblings = light_forms.read_siblings(get_field(document, "history_proof"), "history_proof")
        return light_forms.read_header(get_field(document, "header")), siblings


def _read_sets(document: Mapping[str, Any]) -> tuple[EpochSet, EpochSet]:
    return (
        light_forms.read_set(get_field(document, "validators"), "validators"),
        light_forms.read_set(get_field(document, "next_validators"), "next_validators"),
    )


class LightClient:
    """Follows one node's chain from what it trusts. `open_client` makes one."""

    def __init__(self, node: LightNode, genesis: Genesis, trust: Trust, clock: Clock) -> None:
        self.node = node
        self.genesis = genesis
        self.settings = plan_settings(genesis)
        self._operators: dict[int, tuple[bytes, ...]] = {}  # by epoch, as the nodes said
        self.trust = trust
        self._clock = clock

    @property
    def is_aged(self) -> bool:
        """Whether trust grows old here: stake can leave, and the chain's clock is the world's."""
        return self.settings.trusting_ms < codec.TIME_MS_MAX

    async def follow(self, shown: Shown) -> Trust:
        """Moves trust to this update, through epochs between where it must. Raises Rejected, NotYet, Fork."""
        target = shown.update
        now_ms = self._clock.now_ms()
        if self.genesis.parameters.clock == CLOCK_WORKLOAD:
            now_ms = max(now_ms, target.final.header.timestamp_ms)  # whose future nobody else can tell
        self._operators[target.final.header.epoch] = shown.operators
        between: dict[int, Update] = {}

        def fetch(epoch: int) -> Update:
            if epoch not in between:
                raise _Needed(epoch)
            return between[epoch]

        for _ in range(light.STEPS_MAX):
            try:
                self.trust = light.follow(self.settings, self.trust, target, fetch, now_ms)
            except _Needed as needed:
                height = needed.epoch * self.genesis.parameters.epoch_blocks + 1
                between[needed.epoch] = (await self.node.fetch(height)).update
            else:
                return self.trust
        raise Rejected(f"not there after {light.STEPS_MAX} epochs between", field="target", code="steps")

    async def verify_head(self) -> tuple[Trust, Seating]:
        """The last final block, and the modules that its state names. Raises Rejected."""
        document = await self.node.get(f"/v1/light/records/0x{MODULES_KEY.hex()}")
        header, proof = light_forms.read_record_proof(document)
        trust = await self._reach(header)
        record = light.verify_record(trust.header, proof, MODULES_KEY)
        if record is None:
            raise Rejected("the state names no modules", field="record", code="proof")
        return trust, decode_seating(record)

    async def verify_account(self, address: bytes) -> tuple[Trust, Account]:
        """The account as a final state holds it. Raises Rejected; absence cannot be shown."""
        document = await self.node.get(f"/v1/accounts/0x{address.hex()}", {"proof": "true"})
        if get_field(document, "proof") is None:
            raise Rejected(
                "the node shows no proof: it was never used, or the node hides it",
                field=f"0x{address.hex()}",
                code="absent",
                mend="ask another node; that an account is not there cannot be proven",
            )
        header, proof = light_forms.read_account_proof(document["proof"])
        trust = await self._reach(header)
        return trust, light.verify_account(trust.header, proof, address)

    async def verify_transaction(self, transaction_id: bytes) -> tuple[Trust, Header, TransactionProof]:
        """Block and place of a final transaction, with its score and outcome. Raises Rejected."""
        name = f"0x{transaction_id.hex()}"
        document = await self.node.get(f"/v1/transactions/{name}", {"proof": "true"})
        if get_field(document, "proof") is None:
            status = str(document.get("status"))[:20]
            raise Rejected(f"is {status}, not final", field=name, code="not_final", mend="wait for it")
        shown = light_forms.read_object(document["proof"], "proof")
        header = light_forms.read_header(get_field(shown, "header"))
        proof = TransactionProof(
            transaction_id,
            read_int(document, "score"),
            light_forms.read_outcome(document),
            read_int(shown, "index"),
            light_forms.read_siblings(get_field(shown, "siblings"), "siblings"),
        )
        anchor = read_int(shown, "anchor_height")
        trust = await self.follow(await self.node.fetch(anchor))
        history = light_forms.read_siblings(get_field(shown, "history_proof"), "history_proof")
        if not light.verify_ancestor(trust.header, header, history):
            raise Rejected("is not in the chain", field="proof.header", code="proof")
        if not light.verify_transaction(header, proof):
            raise Rejected("does not show this transaction with this score", field="proof", code="proof")
        return trust, header, proof

    async def compare(self, other: LightNode) -> int:
        """The height at which the other node's final block was found the same. Raises Fork, Rejected."""
        theirs = (await other.fetch(None)).update.final
        top = self.trust.header.height
        if theirs.header.height > top:
            theirs = (await other.fetch(top)).update.final
        height = theirs.header.height
        shown = await self.node.fetch(height)
        mine = shown.update
        self._operators[mine.final.header.epoch] = shown.operators
        history: tuple[bytes, ...] = ()
        if height < top:
            _, history = await self.node.fetch_history(height, top)
        light.check_agreement(self.settings, self.trust, mine.final, history, theirs, mine.validators)
        return height

    def describe_fork(self, fork: Fork) -> dict[str, Any]:
        """Both blocks with their certificates, and each lie with its liar: what `assay stake accuse` takes."""
        header = fork.second.header
        operators = self._operators.get(header.epoch, ())
        proof = fork.proof
        proves = None
        if proof is not None:

            def name(signers: tuple[int, ...]) -> list[str]:
                return ["0x" + operators[signer].hex() for signer in signers if signer < len(operators)]

            proves = {
                "epoch": proof.epoch,
                "views": list(proof.views),
                "liars_stake_min": proof.liars_stake_min,
                "total_stake": fork.total_stake,
                "signed_both": name(proof.signed_both),
                "signed_lower_view": name(proof.signed_lower),
                "wanted": proof.wanted,
                "words": proof.describe(fork.total_stake),
            }
        return {
            "chain_id": self.genesis.chain_id,
            "height": header.height,
            "proves": proves,
            "blocks": [
                light_forms.form_final(final) for final in (fork.first, fork.second) if final is not None
            ],
            "evidence": [
                {
                    "operator": "0x" + operators[lie.first.signer].hex(),
                    "evidence": form_evidence(lie),
                }
                for lie in fork.evidence
                if lie.first.signer < len(operators)
            ],
        }

    async def _reach(self, header: Header) -> Trust:
        """Trust at the final block of this header."""
        if header.height == 0:
            raise Rejected(
                "no block is final yet", field=self.node.url, code="not_final", mend="wait for one"
            )
        trust = await self.follow(await self.node.fetch(header.height))
        if trust.header != header:
            raise Rejected("is of another block than the final one", field="proof.header", code="proof")
        return trust


class _Needed(Exception):
    """An update of this epoch has to be fetched first."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


def plan_settings(genesis: Genesis) -> LightSettings:
    """Of this chain; without an age where the chain's clock is not the world's."""
    settings = LightSettings.from_genesis(genesis)
    if genesis.parameters.clock == CLOCK_WORKLOAD:
        return replace(settings, trusting_ms=codec.TIME_MS_MAX)
    return settings


async def open_client(
    node: LightNode, genesis: Genesis | None, checkpoint: Checkpoint | None, clock: Clock
) -> LightClient:
    """Trust in a checkpoint, or else in one's own genesis file. Raises Rejected."""
    if checkpoint is None:
        if genesis is None:
            raise Fault("neither genesis nor a checkpoint")
        return LightClient(node, genesis, await _trust_genesis(node, genesis, clock), clock)
    shown = await node.fetch(checkpoint.height)
    header = shown.update.final.header
    if header.hash != checkpoint.block_hash:
        raise Rejected(
            f"block {header.height} is 0x{header.hash.hex()}, the checkpoint says 0x{checkpoint.block_hash.hex()}",
            field=node.url,
            code="checkpoint",
            mend="ask another node, or whoever gave the checkpoint",
        )
    found = genesis if genesis is not None else await node.fetch_genesis()
    start, siblings = await node.fetch_history(0, header.height)
    if start.height != 0 or not light.verify_ancestor(header, start, siblings):
        raise Rejected("does not show block 0 below the checkpoint", field="history_proof", code="proof")
    if start.parent_hash != found.digest:
        raise Rejected("is not that of the checkpoint's chain", field="genesis", code="genesis")
    settings = plan_settings(found)
    update = shown.update
    now_ms = clock.now_ms()
    trust = light.open_checkpoint(
        settings, checkpoint.block_hash, header, update.validators, update.next_validators, now_ms
    )
    return LightClient(node, found, trust, clock)


async def _trust_genesis(node: LightNode, genesis: Genesis, clock: Clock) -> Trust:
    """Block 0 as the node shows it. Of its roots nothing is believed; its sets are those of the file."""
    header, _, __ = await node.fetch_start()
    told = (header.height, header.epoch, header.parent_hash, header.timestamp_ms)
    if told != (0, 0, genesis.digest, genesis.timestamp_ms):
        raise Rejected(
            "is not the first block of this genesis",
            field=node.url,
            code="genesis",
            mend="check that node and genesis file are of one chain",
        )
    settings = plan_settings(genesis)
    validators = genesis.validators
    return light.open_checkpoint(settings, header.hash, header, validators, validators, clock.now_ms())
