"""A local network whose validators are mistreated: processes by signals, links and clocks by admin calls,
files by hand.

It remembers which faults are meant to be in force and tells them again to a node that was started anew.
Before a journal is touched, or its owner killed, a copy is kept: at the end no two votes of one validator
may contradict each other, in any copy of any journal, own votes and signatures in certificates alike.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from consensus.bft.contract import Proposal
from consensus.bft.messages import encode_record
from consensus.parameters import CLOCK_WALL
from consensus.vote import NOTARIZE, Certificate, Subject, Vote, is_conflict
from node.engine.journal import read_journal
from node.home import NetworkPlan, create_network
from node.network.links import Direction
from tests.integration.network_process import NetworkProcess, Started, get_json, wait_for
from tests.integration.nursery import Nursery

RECOVER_SECONDS_MAX = 90.0  # of a busy machine; a few seconds on an idle one
STORE_NAMES = ("blocks.log", "index", "checkpoints")
# What no log of an honest validator may hold, whatever is done to it.
FORBIDDEN = ("contradicted itself", "signing stops", "Traceback", "stopped by a fault", "is banned")
HEAD_BYTES = 17  # of a journal's record: length | checksum | epoch | type
Loss = Literal["deleted", "damaged", "older"]
LOSSES: Final[tuple[Loss, ...]] = ("deleted", "damaged", "older")
OBSERVING, SIGNING = "only observing: not signing", "signing again"


class FaultyNetwork(NetworkProcess):
    """Validators `node0` and so on of a wall-clock chain that take admin calls."""

    def __init__(self, home: Path, nodes: int, block_interval_ms: int, random_bytes: Any) -> None:
        super().__init__(home, nodes=nodes)
        self.cuts: set[tuple[int, int]] = set()  # (from, to): frames on this way are lost
        self.skews_ms: dict[int, int] = {}
        self.frozen: set[int] = set()
        self.killed: set[int] = set()
        self._nursery: Nursery | None = None
        self._copies = 0
        self._read_bytes = [0] * nodes  # of each log, by check_logs
        plan = NetworkPlan(
            nodes=nodes,
            base_port=self.base_port,
            block_interval_ms=block_interval_ms,
            refuses=False,  # what is acknowledged must become final; the model may not stop it
            clock=CLOCK_WALL,
            timestamp_ms=time.time_ns() // 1_000_000,
            admin=True,
        )
        create_network(home, plan, random_bytes)
        self._tokens = [(self.get_home(i) / "admin.token").read_text().strip() for i in range(nodes)]

    def __enter__(self) -> FaultyNetwork:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        for i in list(self.frozen):  # or it would hear of no other signal
            os.kill(self.get_pid(i), signal.SIGCONT)
        try:
            super().__exit__(*error)
        finally:
            self._close_nursery()

    def _launch(self, index: int) -> Started:
        self._nursery = self._nursery or Nursery(self.home)
        return self._nursery.start(self.get_home(index))

    def _close_nursery(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    @property
    def asked(self) -> list[int]:
        """Nodes that answer: neither killed nor frozen."""
        return [i for i in range(self.nodes) if i not in self.killed and i not in self.frozen]

    # --- processes ----------------------------------------------------------------------------------

    def kill_nodes(self, *places: int) -> None:
        """kill -9, all of them before the first is waited for."""
        for i in places:
            os.kill(self.get_pid(i), signal.SIGKILL)
        for i in places:
            self.wait_ended(i)
            self.killed.add(i)
            self.frozen.discard(i)
            self.keep_journal(i)

    def kill_everything(self) -> None:
        """kill -9 of all nodes and of `assay localnet` itself, at once."""
        self.kill_all(set(range(self.nodes)) - self.killed)
        self.killed.update(range(self.nodes))
        self.frozen.clear()
        for i in range(self.nodes):
            self.keep_journal(i)

    def start_everything(self) -> None:
        self.start()
        self.killed.clear()
        for i in range(self.nodes):
            self.tell_faults(i)

    def start_nodes(self, *places: int) -> None:
        for i in places:
            self.spawn(i)
        for i in places:
            wait_for(f"node{i}", lambda i=i: self.is_up(i), RECOVER_SECONDS_MAX)
            self.killed.discard(i)
            self.tell_faults(i)

    def stop_in_order(self, place: int, *, by_call: bool) -> None:
        """SIGTERM, or the admin call; the node writes its checkpoint and says goodbye."""
        if by_call:
            self.call_admin(place, "stop", {})
        else:
            os.kill(self.get_pid(place), signal.SIGTERM)
        self.wait_ended(place, RECOVER_SECONDS_MAX)
        self.killed.add(place)
        self.keep_journal(place)

    def freeze(self, place: int) -> None:
        self.frozen.add(place)
        os.kill(self.get_pid(place), signal.SIGSTOP)

    def thaw(self, place: int) -> None:
        os.kill(self.get_pid(place), signal.SIGCONT)
        self.frozen.discard(place)
        self.tell_faults(place)

    # --- links and clocks ---------------------------------------------------------------------------

    def cut(self, *ways: tuple[int, int]) -> None:
        """Lose the frames on these ways; both ends are told, so that one that restarts changes nothing."""
        self.cuts.update(ways)
        self._tell_ends(ways)

    def heal(self, *ways: tuple[int, int]) -> None:
        self.cuts.difference_update(ways)
        self._tell_ends(ways)

    def _tell_ends(self, ways: Iterable[tuple[int, int]]) -> None:
        for i in sorted({end for way in ways for end in way} & set(self.asked)):
            self.tell_faults(i)

    def skew(self, place: int, skew_ms: int) -> None:
        self.skews_ms[place] = skew_ms
        if place in self.asked:
            self.tell_faults(place)

    def tell_faults(self, place: int) -> None:
        """Put in force at one node what is meant to be."""
        cut: dict[str, Direction] = {}
        for other in range(self.nodes):
            is_deaf, is_mute = (other, place) in self.cuts, (place, other) in self.cuts
            if is_deaf or is_mute:
                cut[f"node{other}"] = "both" if is_deaf and is_mute else "in" if is_deaf else "out"
        self.call_admin(place, "links", {"cut": cut})
        faults = self.call_admin(place, "clock", {"skew_ms": self.skews_ms.get(place, 0)})
        assert faults == {"cut": cut, "skew_ms": self.skews_ms.get(place, 0)}, faults

    def call_admin(self, place: int, call: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.get_api(place)}/v1/admin/{call}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._tokens[place]}"},
        )
        with urllib.request.urlopen(request, timeout=RECOVER_SECONDS_MAX) as answer:
            return json.load(answer)

    # --- files of a node that does not run ----------------------------------------------------------

    def tear_journal(self, place: int, share: float, *, is_cut: bool) -> None:
        """An unfinished last write: a record that was never synced, of which a share reached the disk.

        What is synced stays, for a disk that loses that breaks its promise and nobody could notice.
        is_cut: the file ends there; otherwise reserved space follows, as after a crash of the machine.
        """
        path = self.get_home(place) / "journal"
        data = path.read_bytes()
        end = find_end(data)
        payload = encode_record(Vote(Subject(0, NOTARIZE, 2**40, bytes(32)), place, bytes(64)))
        frame = struct.pack(">IIQB", len(payload), 0, 0, 1) + payload
        torn = frame[: 1 + int(share * (len(frame) - 1))]
        with open(path, "r+b") as file:
            file.seek(end)
            file.write(torn)
            if is_cut:
                file.truncate()

    def lose_journal(self, place: int, how: Loss) -> None:
        """Delete it, flip a bit with sound records behind it, or restore the copy of an earlier run."""
        assert (self.get_home(place) / "validator.voted").exists(), "it has not voted yet"
        path = self.get_home(place) / "journal"
        copies = self._list_copies(place)
        match how:
            case "deleted":
                path.unlink()
            case "damaged":
                data = bytearray(path.read_bytes())
                data[HEAD_BYTES - 1] ^= 1  # of the first record, its type
                path.write_bytes(data)
            case "older" if len(copies) > 1:
                shutil.copy(copies[-2], path)  # the last one is that of this very kill
            case "older":
                path.unlink()  # it has had one run only

    def delete_store(self, place: int) -> None:
        for name in STORE_NAMES:
            path = self.get_home(place) / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    # --- what became of it --------------------------------------------------------------------------

    def wait_linked(self, places: Iterable[int]) -> None:
        """Until each of these has a connection with every other one to which its link is whole."""
        names = {f"node{i}": i for i in places}
        for i in places:
            wanted = {n for n, j in names.items() if i != j and not {(i, j), (j, i)} & self.cuts}
            wait_for(
                f"links of node{i} with {wanted}",
                lambda i=i, w=wanted: w <= self._list_linked(i),
                RECOVER_SECONDS_MAX,
            )

    def _list_linked(self, place: int) -> set[str]:
        answer = get_json(f"{self.get_api(place)}/v1/peers")
        return set() if answer is None else {peer["name"] for peer in answer["peers"] if peer["connected"]}

    def wait_caught_up(self, place: int) -> None:
        """Until it has final what the others had final at this moment."""
        top = max(self.get_height(i) for i in self.asked)
        wait_for(f"node{place} at height {top}", lambda: self.get_height(place) >= top, RECOVER_SECONDS_MAX)

    def check_observes(self, place: int, log_from: int) -> None:
        """A node that was started at this byte of its log says that it only observes."""
        assert OBSERVING in self.read_log_from(place, log_from), f"node{place} does not say that it observes"

    def check_signs(self, place: int, log_from: int) -> None:
        """A node that was started at this byte of its log found nothing wrong with its journal."""
        assert OBSERVING not in self.read_log_from(place, log_from), f"node{place} only observes"

    def is_signing_again(self, place: int, log_from: int) -> bool:
        return SIGNING in self.read_log_from(place, log_from)

    def wait_signing(self, place: int, log_from: int) -> None:
        """Until a node that could only observe since this byte of its log may sign again, and does.

        The permission is for views above that of the quorum. Until one of them has come it is still missing to
        every quorum: with two other faults the network would stand still (seed 473582), and rightly so.
        """
        pattern = re.compile(re.escape(SIGNING) + r" epoch=\d+ above_view=(\d+)")
        found = wait_for(
            f"node{place} may sign again",
            lambda: pattern.search(self.read_log_from(place, log_from)),
            RECOVER_SECONDS_MAX,
        )
        above_view, path = int(found[1]), self.get_home(place) / "journal"
        wait_for(
            f"a vote of node{place} above view {above_view}",
            lambda: any(subject.view > above_view for subject in list_signed(path)),
            RECOVER_SECONDS_MAX,
        )
        signed = {subject for subject in list_signed(path) if subject.view <= above_view}
        before = {subject for copy in self._list_copies(place) for subject in list_signed(copy)}
        early = signed - before  # what is left of a damaged journal, or of an older one, it did sign once
        assert not early, f"node{place} signed {early} without its journal, at or below view {above_view}"

    def get_log_bytes(self, place: int) -> int:
        path = self.get_home(place) / "node.log"
        return path.stat().st_size if path.exists() else 0

    def read_log_from(self, place: int, offset: int) -> str:
        with open(self.get_home(place) / "node.log", "rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def check_logs(self) -> None:
        """No node accuses a validator, halts or fails. Reads what is new since the last call."""
        for i in range(self.nodes):
            text = self.read_log_from(i, self._read_bytes[i])
            self._read_bytes[i] += len(text.encode())
            for line in text.splitlines():
                assert not any(words in line for words in FORBIDDEN), f"node{i}: {line}"

    def check_evidence(self) -> None:
        """No running node holds evidence, and no journal that was ever kept contains any."""
        for i in self.asked:
            with urllib.request.urlopen(f"{self.get_api(i)}/metrics", timeout=10) as answer:
                counts = re.findall(rb"^assay_evidence_total (\S+)", answer.read(), re.MULTILINE)
            assert [float(count) for count in counts] == [0.0], f"node{i} holds evidence"
        for i in range(self.nodes):
            self.keep_journal(i)
        seen: dict[tuple[int, int, int], set[Vote]] = {}
        for path in sorted(self._get_folder().iterdir()):
            for vote in list_votes(path):
                key = (vote.signer, vote.subject.epoch, vote.subject.view)
                known = seen.setdefault(key, set())
                if any(other.subject == vote.subject for other in known):
                    continue
                for other in known:
                    assert not is_conflict(other, vote), f"{path.name}: {other} contradicts {vote}"
                known.add(vote)

    def check_same_roots(self) -> int:
        """All hold the same block, and so the same state, at the highest height that is final everywhere."""
        height = min(self.get_height(i) for i in range(self.nodes))
        blocks = [get_json(f"{self.get_api(i)}/v1/blocks/{height}") for i in range(self.nodes)]
        found = {(block["hash"], block["header"]["state_root"], block["final"]) for block in blocks}
        assert len(found) == 1, found
        assert next(iter(found))[2], f"height {height} is not final"
        return height

    def keep_journal(self, place: int) -> None:
        path = self.get_home(place) / "journal"
        if path.exists():
            folder = self._get_folder()
            folder.mkdir(exist_ok=True)
            self._copies += 1
            data = path.read_bytes()
            (folder / f"node{place}-{self._copies:03}").write_bytes(data[: find_end(data)])

    def _list_copies(self, place: int) -> list[Path]:
        return sorted(self._get_folder().glob(f"node{place}-*"))

    def _get_folder(self) -> Path:
        return self.home / "kept-journals"


def find_end(data: bytes) -> int:
    """Where a journal's whole records end: each is length | checksum | epoch | type | payload."""
    offset = 0
    while len(data) - offset >= HEAD_BYTES and (length := int.from_bytes(data[offset : offset + 4], "big")):
        if offset + HEAD_BYTES + length > len(data):
            break
        offset += HEAD_BYTES + length
    return offset


def list_signed(path: Path) -> set[Subject]:
    """What a journal's owner signed: others' signatures stand in certificates alone."""
    own = [record for record in read_journal(path) if not isinstance(record, Certificate)]
    return {(record.vote if isinstance(record, Proposal) else record).subject for record in own}


def list_votes(path: Path) -> Iterator[Vote]:
    """Every signature on record: own votes and proposals, and each signer of a certificate."""
    for record in read_journal(path):
        match record:
            case Vote():
                yield record
            case Proposal():
                yield record.vote
            case Certificate():
                for signer, signature in record.signatures:
                    yield Vote(record.subject, signer, signature)
