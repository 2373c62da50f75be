"""GenRL's communication for a node of a swarm: what this node answered goes to the network process, and the groups of
its peers that were admitted come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from genrl.communication.communication import Communication, Payload
from genrl.state import WorldState

from swarmd.network.network_process import NetworkDown, NetworkProcess
from swarmd.system.events import event
from swarmd.tasks.provenance import SLOTS_PER_TASK, Provenance, task_seed

# An answer may take this much longer than the exchange itself: the last records are being admitted.
_ANSWER_SECONDS = 10.0
# Of what the answer is waited for, this much is kept for admission.
_RESERVE_SECONDS = 1.0
_SHORTEST = 0.5
_RETRY_SECONDS = 0.5


class Swarm(Communication):
    """Shares each round's groups and gathers those of the peers; without any peer, or any network, its own.

    last: what the network process told of the last exchange: {"seen", "admitted", "refused": {reason: count}}.
    """

    def __init__(
        self,
        process: NetworkProcess,
        peer_id: str,
        swarm_id: str,
        tasks_per_round: int,
        round_ends: Callable[[int], float],
        gather_seconds: float,
        beat: Callable[[], None],
    ) -> None:
        """round_ends: when a round is over, seconds since 1970; gather_seconds: how long peers' records are waited
        for; beat: called while it waits."""
        self._process = process
        self._peer_id = peer_id
        self._swarm_id = swarm_id
        self._tasks_per_round = tasks_per_round
        self._round_ends = round_ends
        self._gather_seconds = gather_seconds
        self._beat = beat
        self._round: int | None = None
        self._down = False
        self.last: Mapping[str, Any] = {}

    def get_id(self) -> str:
        return self._peer_id

    def begin_round(self, round: int) -> None:
        """Names the round that the next exchange belongs to. GenRL's own backend counts its calls instead, and reads
        the wrong key for ever after a round was skipped."""
        self._round = round
        self._process.post("open", round=round)

    def all_gather_object(self, obj: Any, *args: Any, **kwargs: Any) -> dict[str | int, Any]:
        """`obj`: this node's {batch id: [Payload]}; returns that of every peer whose record was admitted, by peer id.

        A peer's payload holds {"provenance"} or {"question"} and its completions as plain text: its task is to be
        made anew. RuntimeError before begin_round.
        """
        if self._round is None:
            raise RuntimeError("no round has begun")
        gathered: dict[str | int, Any] = {self._peer_id: obj}
        answer = self._exchange(self._round, list(self._outgoing(self._round, obj)))
        self.last = {"admitted": len(answer.get("groups", ())), **answer}
        for group in answer.get("groups", ()):
            peer: dict[str, list[Payload]] = gathered.setdefault(group["peer_id"], {})
            peer[f"{group['round']}-{len(peer)}"] = [_payload(group)]
        return gathered

    def report(self, verdicts: Mapping[str, Mapping[str, int]]) -> None:
        """Tells what training found out about peers' groups: {peer id: {reason: count}}."""
        if verdicts:
            # Nobody waits for it: whoever replaces a process that is gone has lost one round's opinion of them.
            self._process.post("verdicts", verdicts={peer: dict(reasons) for peer, reasons in verdicts.items()})

    def _exchange(self, round: int, groups: list[dict[str, Any]]) -> Mapping[str, Any]:
        deadline = time.monotonic() + max(_SHORTEST, min(self._gather_seconds, self._round_ends(round) - time.time()))
        while (left := deadline - time.monotonic()) > 0:
            # Not beyond the round's end: without an answer the node trains on its own groups, but in this round.
            patience = max(_SHORTEST, min(left + _ANSWER_SECONDS, self._round_ends(round) - time.time()))
            try:
                return self._checked(
                    self._process.call(
                        "share", patience, self._beat, round=round, groups=groups,
                        until=min(deadline, time.monotonic() + max(_SHORTEST / 2, patience - _RESERVE_SECONDS)),
                        expires=self._round_ends(round + 1),
                    )  # fmt: skip
                )
            except NetworkDown as error:
                self._tell_down(str(error))
                time.sleep(min(_RETRY_SECONDS, left))
                self._beat()
        return {}

    def _checked(self, answer: Any) -> Mapping[str, Any]:
        """The answer, if it has the form of one; it comes from a process that handles what strangers send.

        Raises NetworkDown.
        """
        try:
            for group in answer["groups"]:
                _payload(group)
                if not (isinstance(group["peer_id"], str) and isinstance(group["round"], int)):
                    raise TypeError("a group without a peer or a round")
            counts = {str(reason): int(count) for reason, count in answer["refused"].items()}
            checked = {"groups": answer["groups"], "seen": int(answer["seen"]), "refused": counts}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NetworkDown(f"its answer has not the form of one: {error!r}") from error
        self._down = False
        return checked

    def _tell_down(self, why: str) -> None:
        if not self._down:
            self._down = True
            event("network_down", f"the round goes on without its peers: {why}", priority=4)

    def _outgoing(self, round: int, obj: Mapping[Any, Iterable[Payload]]) -> Iterable[dict[str, Any]]:
        slots = {
            task_seed(self._swarm_id, round, self._peer_id, slot): slot
            for slot in range(self._tasks_per_round * SLOTS_PER_TASK)
        }
        for payloads in obj.values():
            for payload in payloads:
                provenance: Provenance = payload.world_state.environment_states["provenance"]
                slot = slots.get(provenance.seed)
                if slot is None:
                    continue  # one of the few whose dataset had to go on to a derived seed: peers could not check it
                yield {
                    "slot": slot,
                    "provenance": _provenance_map(provenance),
                    "completions": [str(completion) for completion in payload.actions],
                    "mean_logprobs": [_mean(completion.logprobs) for completion in payload.actions],
                }


def _payload(group: Mapping[str, Any]) -> Payload:
    """Raises KeyError or TypeError for a map that is no admitted group."""
    provenance, question, completions = group["provenance"], group["question"], group["completions"]
    if not all(isinstance(completion, str) for completion in completions):
        raise TypeError("a completion that is no text")
    state = {"question": question} if provenance is None else {"provenance": Provenance(**provenance)}
    world = WorldState(environment_states=state, opponent_states=None, personal_states=None)
    return Payload(world_state=world, actions=list(completions), metadata=None)


def _provenance_map(provenance: Provenance) -> dict[str, Any]:
    return {
        "environment": provenance.environment, "dataset": provenance.dataset, "config_hash": provenance.config_hash,
        "seed": provenance.seed, "index": provenance.index,
    }  # fmt: skip


def _mean(logprobs: tuple[float, ...]) -> float:
    return sum(logprobs) / len(logprobs) if logprobs else 0.0
