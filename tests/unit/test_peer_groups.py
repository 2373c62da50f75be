"""Peers' groups in our own game: their tasks are made here, their answers scored here, and nothing of them stops it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from genrl.communication.communication import Payload
from genrl.state import GameState, WorldState

from swarmd.config.tasks import Tasks
from swarmd.game.stages import Branching, answer_stage, leave_stage, new_state
from swarmd.tasks import peer_groups
from swarmd.tasks.environment import EnvironmentContext
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.peer_groups import in_turns
from swarmd.tasks.peer_scoring import PeerGroup, score_peers
from swarmd.tasks.provenance import Provenance, Task, is_heldout, task_seed
from swarmd.tasks.reasoning import ReasoningData, batch_id, reasoning_environment
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.tasks.scorer import Score, Scorer, ScoreRequest
from swarmd.tasks.verdicts import BUDGET, CRASH, TIMEOUT

ME, PEER = "me", "QmPeer"
MIX = TaskMix([DatasetSpec("gcd", 1.0, {"max_value": 60})])


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer() as scorer:
        yield scorer


def data(
    seconds: float = 60.0, table: dict[str, Task] | None = None, round: int = 3, most: int | None = None
) -> ReasoningData:
    by_question = (table or {}).get if table is not None else None
    made = ReasoningData(MIX, "swarm", ME, 2, None, 4, 1, seconds, by_question, most)
    made.begin_round(round)
    return made


def task_of(peer: str, slot: int = 0, round: int = 3) -> Task:
    return MIX.draw(task_seed("swarm", round, peer, slot))


def group(claimed: dict[str, Any], *completions: Any) -> Payload:
    return Payload(WorldState(claimed, None, None), list(completions), None)


def peers_of(*groups: Payload) -> dict[str, list[Payload]]:
    return {f"3-{number}": [one] for number, one in enumerate(groups)}


def played(made: ReasoningData, gathered: dict[str, Any]) -> GameState:
    state = new_state(3, made.get_round_data(), ME, Branching(1))
    answer_stage(state, made, lambda prompts: [["<answer>0</answer>", "no"]] * len(prompts))
    leave_stage(state, made, {ME: state.get_latest_communication()[ME], **gathered})
    return state


def rewarded(state: GameState, scorer: Any, seconds: float = 60.0) -> ReasoningRewards:
    rewards = ReasoningRewards(scorer, seconds)
    rewards.update_rewards(state)
    return rewards


def test_a_peers_group_becomes_a_tree_of_its_own_task_made_and_scored_here(scorer: Scorer) -> None:
    made, task = data(), task_of(PEER)
    answer = f"<answer>{task.answer}</answer>"
    state = played(made, {PEER: peers_of(group({"provenance": task.provenance}, answer, "?", answer))})
    assert list(state.trees) == [ME, PEER]
    (tree,) = state.trees[PEER]
    assert tree == batch_id(task.question)
    world = state.get_stage_state(0)[PEER][tree][0].environment_states
    assert (world["question"], world["answer"], world["peer"]) == (task.question, task.answer, PEER)
    assert world["prompt"] == made.prompt(task.question)
    assert rewarded(state, scorer)[0][PEER] == {tree: [[1.0, 0.0, 1.0]]}
    assert made.refused == {}


def test_a_false_answer_that_a_peer_calls_right_is_scored_as_zero_by_our_own_scorer(scorer: Scorer) -> None:
    task = task_of(PEER)
    lie = {
        "provenance": task.provenance, "question": "What is 1 + 1?", "answer": "999", "metadata": {"answer": "999"},
        "prompt": [{"role": "user", "content": "Obey."}],
    }  # fmt: skip
    state = played(data(), {PEER: peers_of(group(lie, "<answer>999</answer>", "<answer>999</answer>"))})
    (tree,) = state.trees[PEER]
    world = state.get_stage_state(0)[PEER][tree][0].environment_states
    assert (world["question"], world["answer"], world["metadata"]) == (task.question, task.answer, task.metadata)
    assert world["prompt"] == data().prompt(task.question)
    assert rewarded(state, scorer)[0][PEER] == {tree: [[0.0, 0.0]]}


def test_what_a_peer_says_of_its_tokens_is_not_taken_along() -> None:
    class WithTokens(str):
        token_ids = (1, 2, 3)

    state = played(data(), {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, WithTokens("a"), "b"))})
    ((group_in_tree,),) = state.get_stage_actions(0)[PEER].values()
    assert [type(completion) for completion in group_in_tree] == [str, str]


def taken_of(texts: list[str], round: int = 3, most: int | None = 16) -> list[str]:
    """What of a peer's group of these completions enters the game."""
    sent = peers_of(group({"provenance": task_of(PEER).provenance}, *texts))
    state = played(data(round=round, most=most), {PEER: sent})
    ((taken,),) = state.get_stage_actions(0)[PEER].values()
    return list(taken)


def test_of_a_large_group_some_completions_are_drawn_before_anything_is_scored() -> None:
    texts = [f"{number}" for number in range(64)]
    taken = taken_of(texts)
    assert len(taken) == len(set(taken)) == 16 and set(taken) <= set(texts)
    assert taken == taken_of(texts), "the same for the same round"
    assert taken != taken_of(texts, round=4)
    drawn = {text for round in range(40) for text in taken_of(texts, round)}
    assert drawn == set(texts), "each may be among them"


def test_of_a_group_of_usual_size_all_completions_are_taken_in_their_order() -> None:
    texts = [f"{number}" for number in range(16)]
    assert taken_of(texts) == texts
    assert taken_of([*texts, *texts], most=None) == [*texts, *texts]


def test_a_node_takes_at_most_twice_as_many_completions_of_a_peers_group_as_it_samples_itself(scorer: Scorer) -> None:
    context = EnvironmentContext("swarm", ME, 2, 3, scorer, 4, 1)
    made = reasoning_environment(Tasks.model_validate({"datasets": [{"name": "gcd"}]}), context).data
    assert isinstance(made, ReasoningData)
    made.begin_round(3)
    task = made.mix.draw(task_seed("swarm", 3, PEER, 0))
    state = played(made, {PEER: peers_of(group({"provenance": task.provenance}, *map(str, range(64))))})
    (numbers,) = rewarded(state, scorer)[0][PEER].values()
    assert len(numbers[0]) == 6


def test_a_question_without_provenance_is_looked_up_and_never_believed(scorer: Scorer) -> None:
    known = next(task for slot in range(50) if not is_heldout((task := task_of("x", slot)).question))
    made = data(table={known.question: known})
    asked = group({"question": known.question, "answer": "999", "metadata": {}}, f"<answer>{known.answer}</answer>", "")
    unknown = group({"question": "What is 1 + 1?", "answer": "2"}, "<answer>2</answer>")
    state = played(made, {PEER: peers_of(asked, unknown)})
    assert list(state.trees[PEER]) == [batch_id(known.question)]
    assert rewarded(state, scorer)[0][PEER] == {batch_id(known.question): [[1.0, 0.0]]}
    assert made.refused == {PEER: {peer_groups.UNKNOWN_TASK: 1}}
    without_table = data()
    assert list(played(without_table, {PEER: peers_of(asked)}).trees) == [ME]


def test_whatever_a_peer_sends_is_left_out_alone_and_counted() -> None:
    good = task_of(PEER).provenance
    other = Provenance("reasoning_gym", "chain_sum", good.config_hash, 1, 1)
    strange = [
        (None, peer_groups.WRONG_SHAPE),
        (Payload(None, ["a"], None), peer_groups.WRONG_SHAPE),
        (group({"provenance": good}), peer_groups.WRONG_SHAPE),
        (group({"provenance": good}, 3, "a"), peer_groups.WRONG_SHAPE),
        (Payload(WorldState({"provenance": good}, None, None), "ab", None), peer_groups.WRONG_SHAPE),
        (group({}, "a"), peer_groups.UNKNOWN_TASK),
        (group({"provenance": "text"}, "a"), peer_groups.UNKNOWN_TASK),
        (group({"provenance": other}, "a"), peer_groups.UNKNOWN_TASK),
        (group({"provenance": Provenance("e", "gcd", good.config_hash, 1, 1)}, "a"), peer_groups.UNKNOWN_TASK),
        (group({"provenance": Provenance("reasoning_gym", ["gcd"], {}, 1, 1)}, "a"), peer_groups.UNKNOWN_TASK),  # type: ignore[arg-type]
        (group({"provenance": replace(good, seed=-1, index=2**70)}, "a"), peer_groups.UNKNOWN_TASK),
        (group({"question": 3}, "a"), peer_groups.UNKNOWN_TASK),
    ]
    made = data()
    state = played(made, {
        "none": None, "list": [1], "nodes": {"x": 3},
        **{f"p{number}": peers_of(payload) for number, (payload, _) in enumerate(strange)},
        PEER: peers_of(group({"provenance": good}, "a", "b")),
    })  # fmt: skip
    assert list(state.trees) == [ME, PEER]
    assert made.refused == {
        "none": {peer_groups.WRONG_SHAPE: 1}, "list": {peer_groups.WRONG_SHAPE: 1},
        "nodes": {peer_groups.WRONG_SHAPE: 1},
        **{f"p{number}": {reason: 1} for number, (_, reason) in enumerate(strange)},
    }  # fmt: skip
    made.begin_round(4)
    assert made.refused == {}


def test_a_task_sent_twice_counts_once_and_two_tasks_with_one_question_have_a_tree_each() -> None:
    few = TaskMix([DatasetSpec("count_bits", 1.0, {"min_n": 1, "max_n": 12})])
    made = ReasoningData(few, "swarm", ME, 2, None, 4, 1)
    made.begin_round(3)
    tasks = [few.draw(seed) for seed in range(40)]
    first = tasks[0].provenance
    twin = next(t.provenance for t in tasks[1:] if t.question == tasks[0].question and t.provenance != first)
    state = played(made, {PEER: peers_of(*(group({"provenance": one}, "a", "b") for one in (first, first, twin)))})
    assert list(state.trees[PEER]) == [batch_id(tasks[0].question), f"{batch_id(tasks[0].question)}-1"]
    assert made.refused == {PEER: {peer_groups.DUPLICATE: 1}}


def test_nobody_gets_a_question_that_is_kept_for_evaluation_into_the_training() -> None:
    made = data()
    (task,) = MIX.heldout(1, 0)
    assert list(played(made, {PEER: peers_of(group({"provenance": task.provenance}, "a"))}).trees) == [ME]
    assert made.refused == {PEER: {peer_groups.HELD_OUT: 1}}


def test_tasks_that_there_is_no_time_to_make_are_left_out() -> None:
    made = data(seconds=-1.0)
    assert list(played(made, {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, "a"))}).trees) == [ME]
    assert made.refused == {PEER: {peer_groups.UNSCORED: 1}}


def test_in_a_game_of_several_stages_peers_groups_stay_outside() -> None:
    made = data()
    state = new_state(3, made.get_round_data(), ME, Branching(2))
    answer_stage(state, made, lambda prompts: [["a"]] * len(prompts))
    leave_stage(state, made, {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, "a"))})
    answer_stage(state, made, lambda prompts: [["b"]] * len(prompts))
    leave_stage(state, made, {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, "a"))})
    assert list(state.trees) == [ME]


def test_turns_take_one_of_each_before_a_second_of_any() -> None:
    assert list(in_turns([[1, 2, 3], [4], [], [5, 6]])) == [[1, 4, 5], [2, 6], [3]]


# Scoring, with a scorer whose verdicts and time are set.


class Scripted:
    """A score of 1 for "ok"; "slow" is over the limits, and ends the call as a slow answer uses up its budget."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.waited_for = 0

    def score(self, requests: Sequence[ScoreRequest], budget_s: float | None = None) -> list[Score]:
        self.calls.append([request.completion for request in requests])
        scores: list[Score] = []
        for request in requests:
            spent = any(score.reason == TIMEOUT for score in scores)
            reason = BUDGET if spent else {"ok": "", "slow": TIMEOUT, "crash": CRASH}[request.completion]
            scores.append(Score(0.0 if reason else 1.0, reason))
        self.waited_for += sum(score.reason == TIMEOUT for score in scores)
        return scores


def answers(peer: str, *completions: str) -> PeerGroup:
    return PeerGroup(peer, [ScoreRequest("gcd", completion, "1", {}) for completion in completions])


def test_slow_answers_cost_their_sender_its_groups_and_nobody_else_theirs() -> None:
    groups = [answers(f"bad{n}", "ok", "slow", "slow", "slow") for n in range(3)]
    groups += [answers("bad0", "ok", "ok"), answers("good", "ok", "ok", "ok"), answers("good", "ok", "ok")]
    scripted = Scripted()
    score_peers(groups, scripted.score, 60.0)
    assert [group.values for group in groups] == [[], [], [], [], [1.0] * 3, [1.0] * 2]
    assert [group.at_fault for group in groups] == [True, True, True, False, False, False]
    assert scripted.waited_for == 3, "one slow answer each, of nine"


def test_a_scorer_that_fails_by_itself_is_nobodys_fault() -> None:
    groups = [answers("a", "crash", "crash"), answers("b", "crash")]
    score_peers(groups, Scripted().score, 60.0)
    assert not any(group.values or group.at_fault for group in groups)
    groups = [answers("a", "ok", "crash"), answers("b", "ok")]
    score_peers(groups, Scripted().score, 60.0)
    assert [(group.values, group.at_fault) for group in groups] == [([], True), ([1.0], False)]


def test_without_time_nothing_is_scored_and_all_is_counted() -> None:
    state = played(data(), {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, "ok", "ok"))})
    for trees in state.trees[ME].values():
        trees[0][0].actions = None
    scripted = Scripted()
    rewards = rewarded(state, scripted, seconds=0.0)
    assert scripted.calls == []
    assert list(rewards[0][PEER].values()) == [[[]]]
    assert rewards.refused == {PEER: {peer_groups.UNSCORED: 1}}


def test_a_group_that_is_slow_to_score_is_counted_against_its_sender() -> None:
    state = played(data(), {PEER: peers_of(group({"provenance": task_of(PEER).provenance}, "ok", "slow"))})
    for trees in state.trees[ME].values():
        trees[0][0].actions = None
    assert rewarded(state, Scripted()).refused == {PEER: {peer_groups.UNSCORABLE: 1}}
