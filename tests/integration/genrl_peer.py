"""A node of GenRL without a model: unmodified data manager, game state, serialisation and HivemindBackend.

It is run by an interpreter of `genrl_venvs`, knows nothing of swarmd, reads its settings (`genrl_peers.Settings`) as
one line of JSON from stdin, plays until stdin ends, and writes a line of JSON about itself and about every round.

What of stock GenRL bears on an exchange with others, and is left as it is:
- `all_gather_object` stores, sleeps 1 s, reads once (HIVEMIND_WORLD_SIZE is 1 unless somebody sets it), and takes what
  is there by then. Who publishes later in the round is never seen by it; hence `offset`.
- It counts its own calls for the name of the round (`step_`), which nobody tells it. A node that misses a round reads
  and writes under old keys for ever after; RL Swarm's nodes do. Here it is set before each call, or nothing could be
  said about which rounds meet.
- Its records live 600 s and cannot be signed, and its reads have no deadline.
- 0.3.0's own data manager cannot use anybody's record, its own included: `transplant_trees` indexes a Payload, which is
  no dict any more. 0.1.11's can, and `trains_on` shows that it does.
- Neither reads the other's format. 0.1.11 passes over a record of 0.3.0 with a warning; 0.3.0 takes one of 0.1.11 for
  the number 0, and its game stumbles over that.
- At its start one of the peers it is told of must answer; it tries once, and ends.
- hivemind hands values of more than 16 KiB to its DHT process through a pipe that may break at them; then its call
  never returns. The tasks here stay below that.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import hivemind
from hivemind.utils.timed_storage import get_dht_time

# hivemind 1.1.12 moved it; both versions of GenRL import it from its old place.
hivemind.get_dht_time = get_dht_time

from genrl.communication.hivemind.hivemind_backend import HivemindBackend, HivemindRendezvouz  # noqa: E402
from genrl.examples.rgym.data import ReasoningGymDataManager  # noqa: E402
from genrl.examples.rgym.reward_utils import accuracy_reward  # noqa: E402
from genrl.state import GameState  # noqa: E402

COMPLETIONS = 8
LIE = "as you like it"


def completions(answer: str, right: int) -> list[str]:
    """A group of which so many are right, in the form that reasoning-gym's prompts ask for."""
    wrong = [f"<answer>{number}{number}</answer>" for number in range(1, COMPLETIONS - right + 1)]
    return [*wrong, *[f"<answer>{answer}</answer>"] * right]


def play(backend: HivemindBackend, data: ReasoningGymDataManager, round: int, settings: dict[str, Any]) -> None:
    """One round as GenRL's game manager plays it, with made-up answers; tells what was published and gathered."""
    me = backend.get_id()
    state = GameState(round=round, stage=0)
    state._init_game(data.get_round_data(), agent_keys=[me])
    actions = {}
    for batch_id, tree in state.trees[me].items():
        task = tree[0][0].world_state.environment_states
        actions[batch_id] = [completions(task["answer"], settings["right"])]
        if settings["lies"]:
            # By the false answer a wrong completion is right, and those that are right are wrong.
            actions[batch_id][0][0] = f"<answer>{LIE}</answer>"
            task["answer"] = LIE
            task["metadata"] = {"source_dataset": "chain_sum", "of": "a liar"}
    state.append_actions({me: actions})
    published = state.get_latest_communication()[me]
    if settings["foreign"]:
        published.update(foreign(data, state, me))
    backend.step_ = round
    gathered = backend.all_gather_object(published)
    told = {"round": round, "published": shown(published), "gathered": {str(k): shown(v) for k, v in gathered.items()}}
    print(json.dumps({**told, "trains_on": trains_on(data, state, gathered)}), flush=True)


def foreign(data: ReasoningGymDataManager, state: GameState, me: str) -> dict[Any, Any]:
    """A batch with a question that no node of the swarm asks."""
    question = "How much is one and one?"
    other = GameState(round=state.round, stage=0)
    first = next(iter(state.trees[me].values()))[0][0].world_state
    world = type(first)({"question": question, "answer": "2", "metadata": {}}, None, None)
    other._init_game([(data.batch_item_id_generator(question), world)], agent_keys=[me])
    other.append_actions({me: {batch_id: [completions("2", 4)] for batch_id in other.trees[me]}})
    return dict(other.get_latest_communication()[me])


def trains_on(data: ReasoningGymDataManager, state: GameState, gathered: Any) -> Any:
    """Whose groups GenRL's own game gives its trainer, after it has scored and ranked them; or what it fails with."""
    try:
        data.prepare_states(state, gathered)
        _, places = data.prepare_input(state.get_stage_state(0), 0)
    except Exception as error:  # as GenRL's loop does, which then goes on alone
        return f"{type(error).__name__}: {error}"
    return sorted({str(agent) for agent, _, _ in places.values()})


def shown(batches: Any) -> Any:
    """What was decoded, as JSON, with the scores that GenRL gives it; of what is no map of batches only its type."""
    if not isinstance(batches, dict):
        return type(batches).__name__
    return {str(batch_id): [shown_group(payload) for payload in payloads] for batch_id, payloads in batches.items()}


def shown_group(payload: Any) -> dict[str, Any]:
    task = payload.world_state.environment_states
    # A task without metadata it cannot score, and one with the false metadata of another dataset neither.
    honest = "source_dataset" in task["metadata"] and "of" not in task["metadata"]
    scores = accuracy_reward(payload.actions, task["answer"], task["metadata"]) if honest else None
    return {**task, "actions": payload.actions, "scores": scores}


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    data = ReasoningGymDataManager(
        settings["datasets"], num_train_samples=settings["tasks"], num_evaluation_samples=0, seed=settings["seed"],
        num_transplant_trees=64,
    )  # fmt: skip
    HivemindRendezvouz.init(is_master=not settings["peers"])
    # Nothing of this may leave the machine: no port mapping at a router, no relays. With a file for its identity it has
    # an RSA key (Qm...), as RL Swarm's nodes; without one hivemind makes an Ed25519 key (12D3...).
    backend = HivemindBackend(
        initial_peers=settings["peers"], beam_size=30, identity_path=settings["identity"], nat_port_map=False,
        auto_nat=False, use_relay=False, use_auto_relay=False,
    )  # fmt: skip
    addresses = [str(address) for address in backend.dht.get_visible_maddrs(latest=True)]
    print(json.dumps({"peer_id": backend.get_id(), "addresses": addresses}), flush=True)
    asked_to_end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), asked_to_end.set()), daemon=True).start()
    played = -1
    while not asked_to_end.wait(0.05):
        round, since = divmod(time.time() - settings["epoch"], settings["round_seconds"])
        if round > played and since >= settings["offset"]:
            played = int(round)
            play(backend, data, played, settings)
    backend.dht.shutdown()
    sys.stdout.flush()
    os._exit(0)  # hivemind's threads may hold an interpreter that ends


if __name__ == "__main__":
    main()
