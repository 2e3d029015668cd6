"""Messages and journal records as bytes, and the checks that need no state.

One array per message: its type, then its fields. The BlockRef of a proposal is not sent: whoever reads
it derives it from the payload (the header's bytes), so nobody can tell an engine of a block that is not
what its hash says.

Invariant: decode(encode(x)) == x, and no other bytes decode to x; counts and sizes are bounded before
and while decoding. `check_message` is pure and may run in a worker.
Leaves out: who leads a view, and whether a view is near; the engine knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from consensus import block, codec, crypto, vote
from consensus.bft.contract import NULLIFICATIONS_MAX, BlockRef, CertificateRequest, Message, Proposal
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, ValidatorSet, Verifier, Vote

VOTE_TYPE: Final = 0
CERTIFICATE_TYPE: Final = 1
PROPOSAL_TYPE: Final = 2
REQUEST_TYPE: Final = 3

PAYLOAD_BYTES_MAX: Final = block.HEADER_BYTES_MAX
CERTIFICATES_MAX: Final = NULLIFICATIONS_MAX + 1  # of a proposal: the gap's, and the parent's
MESSAGE_BYTES_MAX: Final = 1024 + PAYLOAD_BYTES_MAX + CERTIFICATES_MAX * vote.CERTIFICATE_BYTES_MAX
RECORD_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 256
MESSAGE_ITEMS_MAX: Final = 64 + CERTIFICATES_MAX * (16 + 3 * vote.VALIDATORS_MAX)

ReadBlock = Callable[[bytes], BlockRef]


def make_block_reader(validators: ValidatorSet) -> ReadBlock:
    """How a real node reads a payload: header bytes -> BlockRef. It raises Rejected."""
    indexes = {validator.public_key: index for index, validator in enumerate(validators.validators)}

    def read_block(payload: bytes) -> BlockRef:
        return make_block_ref(block.decode_header(payload), indexes)

    return read_block


def make_block_ref(header: block.Header, index_by_key: Mapping[bytes, int]) -> BlockRef:
    """A block as its epoch's engine knows it. Raises Rejected when its proposer is not of the set."""
    proposer = index_by_key.get(header.proposer)
    if proposer is None:
        raise Rejected("is not a validator of this epoch", field="header.proposer", code="signer")
    return BlockRef(
        header.hash,
        header.epoch,
        header.view,
        header.height,
        header.parent_view,
        header.parent_hash,
        proposer,
    )


def make_genesis_ref(header: block.Header, epoch: int) -> BlockRef:
    """The block below an epoch's first one, as that epoch's engine knows it: final at view 0.

    For epoch 0 block 0, for any other the boundary block of the epoch before, whatever view that was.
    """
    return BlockRef(
        header.hash, epoch, block.GENESIS_VIEW, header.height, block.GENESIS_VIEW, header.parent_hash, 0
    )


def encode_message(message: Message) -> bytes:
    """The canonical bytes of a message; journal records are written the same way."""
    match message:
        case Vote():
            return codec.encode((VOTE_TYPE, *vote.pack_vote(message)))
        case Certificate():
            return codec.encode((CERTIFICATE_TYPE, *vote.pack_certificate(message)))
        case Proposal():
            return codec.encode((PROPOSAL_TYPE, *_pack_proposal(message)))
        case CertificateRequest():
            return codec.encode((REQUEST_TYPE, message.epoch, message.view, message.kind))
        case _:
            assert_never(message)


def decode_message(data: bytes, read_block: ReadBlock) -> Message:
    """The message that `data` encodes. Raises Rejected; signatures are not checked here."""
    value = codec.decode(data, what="message", bytes_max=MESSAGE_BYTES_MAX, items_max=MESSAGE_ITEMS_MAX)
    if type(value) is not tuple or not value:
        raise Rejected("must be an array with a type", field="message", code="encoding")
    kind = codec.check_int(value[0], "message.type", high=REQUEST_TYPE)
    fields = value[1:]
    if kind == VOTE_TYPE:
        return vote.unpack_vote(fields)
    if kind == CERTIFICATE_TYPE:
        return vote.unpack_certificate(fields)
    if kind == PROPOSAL_TYPE:
        return _unpack_proposal(fields, read_block)
    epoch, view, wanted = codec.check_fields(fields, 3, "request")
    return CertificateRequest(
        codec.check_int(epoch, "request.epoch"),
        codec.check_int(view, "request.view", low=1),
        codec.check_int(wanted, "request.kind", high=FINALIZE),
    )


def encode_record(record: Vote | Certificate | Proposal) -> bytes:
    """A journal record. A proposal's BlockRef is written too: a journal is read without a host."""
    message = encode_message(record)
    if not isinstance(record, Proposal):
        return message
    ref = record.block
    place = (ref.hash, ref.epoch, ref.view, ref.height, ref.parent_view, ref.parent_hash, ref.proposer)
    return codec.encode((place, message))


def decode_record(data: bytes) -> Vote | Certificate | Proposal:
    """The record that `data` encodes. Raises Rejected. For own records only: the BlockRef is believed."""
    value = codec.decode(data, what="record", bytes_max=RECORD_BYTES_MAX, items_max=MESSAGE_ITEMS_MAX)
    if type(value) is tuple and len(value) == 2:
        fields = codec.check_fields(value[0], 7, "record.block")
        for place in (0, 5):
            codec.check_bytes(fields[place], "record.block", length=crypto.HASH_BYTES)
        for place in (1, 2, 3, 4, 6):
            codec.check_int(fields[place], "record.block")
        data = codec.check_bytes(value[1], "record.message", length_max=MESSAGE_BYTES_MAX)
        record = decode_message(data, lambda _: BlockRef(*fields))
    else:
        record = decode_message(data, _refuse_block)
    if isinstance(record, CertificateRequest):
        raise Rejected("a request is no record", field="record", code="type")
    return record


def _refuse_block(payload: bytes) -> BlockRef:
    raise Rejected(f"a proposal of {len(payload)} bytes without its block", field="record", code="encoding")


def _pack_proposal(proposal: Proposal) -> tuple[Any, ...]:
    # The vote's subject follows from the block: only its signature is sent.
    parent = proposal.parent_certificate
    return (
        proposal.payload,
        proposal.vote.signature,
        None if parent is None else vote.pack_certificate(parent),
        tuple(vote.pack_certificate(certificate) for certificate in proposal.nullifications),
    )


def _unpack_proposal(fields: Any, read_block: ReadBlock) -> Proposal:
    payload, signature, parent, nullifications = codec.check_fields(fields, 4, "proposal")
    codec.check_bytes(payload, "proposal.payload", length_max=PAYLOAD_BYTES_MAX)
    codec.check_bytes(signature, "proposal.signature", length=crypto.SIGNATURE_BYTES)
    if type(nullifications) is not tuple or len(nullifications) > NULLIFICATIONS_MAX:
        raise Rejected(
            f"must be an array of at most {NULLIFICATIONS_MAX}", field="proposal.nullifications", code="size"
        )
    ref = read_block(payload)
    if ref.view < 1:
        raise Rejected("nobody proposes in view 0", field="proposal.view", code="range")
    return Proposal(
        ref,
        payload,
        Vote(vote.Subject(ref.epoch, NOTARIZE, ref.view, ref.hash), ref.proposer, signature),
        None if parent is None else vote.unpack_certificate(parent),
        tuple(vote.unpack_certificate(certificate) for certificate in nullifications),
    )


def check_message(message: Message, validators: ValidatorSet, chain_id: str, verify: Verifier) -> None:
    """Raises Rejected unless form and signatures hold: what an engine may be given."""
    match message:
        case Vote():
            vote.check_vote(message, validators, chain_id, verify)
        case Certificate():
            vote.check_certificate(message, validators, chain_id, verify)
        case Proposal():
            _check_proposal(message, validators, chain_id, verify)
        case CertificateRequest():
            pass  # bounded by its decoding; it claims nothing
        case _:
            assert_never(message)


def _check_proposal(proposal: Proposal, validators: ValidatorSet, chain_id: str, verify: Verifier) -> None:
    ref, parent = proposal.block, proposal.parent_certificate
    if not ref.parent_view < ref.view:
        raise Rejected("must be below the block's view", field="proposal.parent_view", code="parent")
    subject = vote.Subject(ref.epoch, NOTARIZE, ref.view, ref.hash)
    if proposal.vote.subject != subject or proposal.vote.signer != ref.proposer:
        raise Rejected("is not the proposer's for this block", field="proposal.vote", code="signer")
    if (parent is None) != (ref.parent_view == block.GENESIS_VIEW):
        raise Rejected(
            "must be there above genesis alone", field="proposal.parent_certificate", code="parent"
        )
    if parent is not None:
        named = (parent.subject.epoch, parent.subject.view, parent.subject.block_hash)
        if parent.subject.kind == NULLIFY or named != (ref.epoch, ref.parent_view, ref.parent_hash):
            raise Rejected("is not the parent's", field="proposal.parent_certificate", code="parent")
    below = ref.parent_view
    for certificate in proposal.nullifications:
        skipped = certificate.subject
        if skipped.kind != NULLIFY or skipped.epoch != ref.epoch or not below < skipped.view < ref.view:
            raise Rejected(
                "must be of views between parent and block, rising",
                field="proposal.nullifications",
                code="gap",
            )
        below = skipped.view
    vote.check_vote(proposal.vote, validators, chain_id, verify)
    for certificate in (*(() if parent is None else (parent,)), *proposal.nullifications):
        vote.check_certificate(certificate, validators, chain_id, verify)
