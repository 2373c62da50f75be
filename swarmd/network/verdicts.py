"""What became of peers' records and groups, told to both who keep count: the accounts, and the peers' reputation."""

from __future__ import annotations

import logging

from swarmd.network.accounts import Accounts
from swarmd.network.records import Record
from swarmd.network.refusals import Refused
from swarmd.network.reputation import GOOD, Reputation

_log = logging.getLogger("swarmd")


class Verdicts:
    """accounts: by peer, for whoever wants to read them; reputation: of those who sign. now: everywhere seconds since
    1970."""

    def __init__(self, reputation: Reputation) -> None:
        self.accounts = Accounts()
        self.reputation = reputation

    def refuse(self, subkey: object, refusal: Refused) -> None:
        """Counts a record; nothing that is found at this stage is held against whose name it bears."""
        self.accounts.refuse(subkey, refusal.reason)
        _log.debug("a record is refused: %s", refusal)

    def refuse_group(self, record: Record, refusal: Refused, now: float) -> None:
        self.accounts.refuse(record.peer_id, refusal.reason)
        self._note(record.peer_id, refusal.reason, now)
        _log.debug("a group of %s is refused: %s", record.peer_id, refusal)

    def admit(self, peer_id: str, now: float) -> None:
        self.accounts.admit(peer_id)
        self._note(peer_id, GOOD, now)

    def trained_on(self, peer_id: str, verdict: str, now: float, count: int) -> None:
        """What training found out about so many groups that were admitted."""
        self.accounts.refuse(peer_id, verdict, count)
        self._note(peer_id, verdict, now, count)

    def _note(self, peer_id: str, verdict: str, now: float, count: int = 1) -> None:
        """Only who signs has a reputation. Under another's name anybody can publish an unsigned record, and who is to
        be shut out takes another name: a quarantine would hit the honest peers alone."""
        if self.reputation.has_signed(peer_id):
            self.reputation.report(peer_id, verdict, now, count)
