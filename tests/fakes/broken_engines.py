"""Engines that break one rule, for the tests of the worlds and checkers that must notice."""

from consensus.bft.contract import Effect
from consensus.bft.simplex import SimplexEngine
from consensus.vote import FINALIZE


class Amnesiac(SimplexEngine):
    """It forgets its journal."""

    def start(self, records: object) -> tuple[Effect, ...]:
        return super().start(())


class Hasty(SimplexEngine):
    """It finalizes what it nullified."""

    def _try_finalize(self) -> None:
        for view in sorted(self._finalizable):
            found = self._tally.get(view)
            if found is None or self._own is None or found.has_vote(FINALIZE, self._own):
                self._finalizable.discard(view)
            elif self._may_sign(view) and self._blocks.is_valid(found.notarized_hash):
                self._cast(FINALIZE, view, found.notarized_hash)
