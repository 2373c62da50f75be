"""A round of a real GenRL game: tasks become trees, completions come back into them, and the scorer rewards them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from genrl.state import GameState

from swarmd.config.tasks import Tasks
from swarmd.game.stages import Branching
from swarmd.system.exits import ConfigurationError
from swarmd.tasks.environment import Environment, EnvironmentContext, load_environment
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.provenance import task_seed
from swarmd.tasks.reasoning import ReasoningData, batch_id, draw_round
from swarmd.tasks.scorer import Score, Scorer, ScoreRequest

ME = "me"

TWO_STAGES = '''
"""Answer first, then look at the answer and answer again."""

from genrl.state import WorldState

from swarmd.tasks.environment import Environment
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.reasoning import ReasoningData
from swarmd.tasks.rewards import ReasoningRewards


class SecondLook(ReasoningData):
    def prepare_states(self, current_state, swarm_states):
        states = super().prepare_states(current_state, swarm_states)
        actions = current_state.get_latest_actions()
        return {
            agent: {
                tree: [self.after(state, actions[agent][tree][node]) for node, state in enumerate(nodes)]
                for tree, nodes in trees.items()
            }
            for agent, trees in states.items()
        }

    def after(self, state, completions):
        world = dict(state.environment_states)
        said = {"role": "assistant", "content": str(completions[0])}
        world["prompt"] = [*world["prompt"], said, {"role": "user", "content": "Are you sure?"}]
        return WorldState(environment_states=world, opponent_states=None, personal_states=None)


def make(settings, context):
    mix = TaskMix([DatasetSpec("gcd", 1.0, {"max_value": 60})])
    data = SecondLook(mix, context.swarm_id, context.node_id, context.tasks_per_round, None, 4, context.seed)
    return Environment("second look", data, ReasoningRewards(context.scorer), stages=2)
'''


class CountingScorer:
    """The real scorer, and how often it was called."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.calls: list[int] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.calls.append(len(requests))
        return self.scorer.score(requests)


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer() as scorer:
        yield scorer


def context(scorer: CountingScorer, node_id: str = ME) -> EnvironmentContext:
    return EnvironmentContext("swarm", node_id, 4, 3, scorer, 12, 1, None)


def new_game(environment: Environment, round: int) -> GameState:
    rules = Branching(environment.stages)
    environment.data.begin_round(round)  # type: ignore[attr-defined]
    state = GameState(round=round, stage=0)
    state._init_game(
        environment.data.get_round_data(),
        agent_keys=[ME],
        game_tree_brancher={
            "terminal_node_decision_function": rules.terminal_game_tree_node_decider,
            "stage_inheritance_function": rules.stage_inheritance_function,
        },
    )
    return state


def play_stage(state: GameState, environment: Environment, answer: Callable[[dict[str, Any]], list[str]]) -> list[Any]:
    """Plays one stage with typed-in answers; returns the prompts that a model would have got."""
    data = environment.data
    worlds = state.get_latest_state()
    prompts, places = data.prepare_input(worlds, state.stage)
    nodes = [places[position] for position in range(len(prompts))]
    outputs = [answer(worlds[agent][tree][node].environment_states) for agent, tree, node in nodes]
    state.append_actions(data.prepare_actions(outputs, places))
    state.advance_stage(data.prepare_states(state, {}))
    return prompts


def test_a_round_of_one_stage_is_played_scored_and_rewarded(scorer: Scorer) -> None:
    counting = CountingScorer(scorer)
    environment = load_environment("reasoning_gym", Tasks(), context(counting))
    state = new_game(environment, 5)

    def answers(world: dict[str, Any]) -> list[str]:
        return [f"I say <answer>{world['answer']}</answer>", "<answer>no number</answer>", "no tags at all"]

    prompts = play_stage(state, environment, answers)
    assert state.stage == 1
    questions = [task.question for task in draw_round(environment.data.mix, "swarm", 5, ME, 4)]
    assert prompts == [{"prompt": [{"role": "user", "content": question}]} for question in questions]

    environment.rewards.update_rewards(state)
    assert counting.calls == [12], "one call for the whole round"
    rewards = environment.rewards[0]
    assert list(rewards) == [ME]
    assert list(rewards[ME]) == [batch_id(question) for question in questions]
    for nodes in rewards[ME].values():
        assert [len(group) for group in nodes] == [3]
        assert nodes[0][0] == 1.0
        assert nodes[0][1] < 1.0
        assert nodes[0][2] == 0.0
    assert environment.rewards.last_reasons["no_answer"] == 4
    assert environment.rewards() == environment.rewards.rewards == [rewards]
    environment.rewards.reset()
    assert environment.rewards() == []
    assert environment.rewards.last_reasons["no_answer"] == 4


def test_a_round_of_two_stages_is_played_scored_and_rewarded(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second_look_for_swarmd.py").write_text(TWO_STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    counting = CountingScorer(scorer)
    environment = load_environment("second_look_for_swarmd:make", Tasks(), context(counting))
    state = new_game(environment, 1)

    first = play_stage(state, environment, lambda world: ["<answer>0</answer>", f"<answer>{world['answer']}</answer>"])
    second = play_stage(state, environment, lambda world: [f"<answer>{world['answer']}</answer>"])
    assert state.stage == environment.stages == 2
    assert [len(row["prompt"]) for row in first] == [1] * 4
    assert [[message["content"] for message in row["prompt"][1:]] for row in second] == [
        ["<answer>0</answer>", "Are you sure?"]
    ] * 4

    environment.rewards.update_rewards(state)
    assert counting.calls == [4 * 2 + 4]
    for stage, expected in ((0, [0.0, 1.0]), (1, [1.0])):
        assert [nodes for nodes in environment.rewards[stage][ME].values()] == [[expected]] * 4
    # What training reads afterwards: the prompt of each stage as the model saw it.
    again = [environment.data.prepare_input(state.get_stage_state(stage), stage)[0] for stage in (0, 1)]
    assert again == [first, second]


def test_completions_that_carry_tokens_are_scored_as_text(scorer: Scorer) -> None:
    class WithTokens(str):
        token_ids = (1, 2, 3)

    environment = load_environment("reasoning_gym", Tasks(), context(CountingScorer(scorer)))
    state = new_game(environment, 2)
    play_stage(state, environment, lambda world: [WithTokens(f"<answer>{world['answer']}</answer>")])
    environment.rewards.update_rewards(state)
    assert [nodes for nodes in environment.rewards[0][ME].values()] == [[[1.0]]] * 4
    kept = state.get_stage_actions(0)[ME]
    assert all(group[0].token_ids == (1, 2, 3) for nodes in kept.values() for group in nodes)


def test_a_node_without_completions_gets_no_rewards_and_costs_no_call(scorer: Scorer) -> None:
    counting = CountingScorer(scorer)
    environment = load_environment("reasoning_gym", Tasks(), context(counting))
    state = new_game(environment, 2)
    play_stage(state, environment, lambda world: [])
    environment.rewards.update_rewards(state)
    assert counting.calls == []
    assert list(environment.rewards[0][ME].values()) == [[[]]] * 4


def test_a_batch_id_is_the_md5_of_the_question() -> None:
    assert batch_id("What is 1 + 1?") == hashlib.md5(b"What is 1 + 1?").hexdigest()


def reasoning_data(mix: TaskMix, count: int, system_prompt: str | None = None, samples: int = 4) -> ReasoningData:
    return ReasoningData(mix, "swarm", ME, count, system_prompt, samples, 1)


def few_questions() -> TaskMix:
    return TaskMix([DatasetSpec("count_bits", 1.0, {"min_n": 1, "max_n": 12})])


def test_tasks_of_a_round_have_different_questions_even_where_there_are_few() -> None:
    mix = few_questions()
    data = reasoning_data(mix, 6)
    repeats = 0
    for round in range(40):
        data.begin_round(round)
        trees = data.get_round_data()
        assert len({tree for tree, _ in trees}) == len(trees) == 6
        first = [mix.draw(task_seed("swarm", round, ME, slot)).question for slot in range(6)]
        repeats += len(set(first)) < 6
    assert repeats > 5, "the test must have met repeats"


def test_a_mix_with_fewer_questions_than_a_round_has_tasks_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        draw_round(few_questions(), "swarm", 1, ME, 13)
    assert str(refusal.value) == (
        "tasks.datasets: only 10 different questions in 832 draws, and a round has 13 "
        "(training.tasks_per_round); widen the datasets or lower that"
    )


def test_a_repeated_round_has_the_same_tasks_and_the_next_one_others() -> None:
    mix = TaskMix([DatasetSpec("chain_sum")])
    first, second = reasoning_data(mix, 8), reasoning_data(TaskMix([DatasetSpec("chain_sum")]), 8)
    for data in (first, second):
        data.begin_round(3)
    assert first.get_round_data() == first.get_round_data() == second.get_round_data()
    second.begin_round(4)
    assert not {tree for tree, _ in first.get_round_data()} & {tree for tree, _ in second.get_round_data()}


def test_a_round_must_have_begun_before_its_tasks_are_asked_for() -> None:
    with pytest.raises(RuntimeError, match="^no round has begun$"):
        reasoning_data(few_questions(), 2).get_round_data()


def test_a_system_prompt_stands_before_the_question() -> None:
    data = reasoning_data(few_questions(), 2, system_prompt="Be short.")
    assert data.prompt("1 + 1?") == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "1 + 1?"},
    ]


def test_repeated_held_out_questions_have_trees_of_their_own() -> None:
    data = reasoning_data(TaskMix([DatasetSpec("count_bits", 1.0, {"min_n": 1, "max_n": 64})]), 2, samples=60)
    trees = [tree for tree, _ in data.get_eval_data()]
    assert len(set(trees)) == len(trees) == 60
    assert len({tree.split("-")[0] for tree in trees}) < 60


def test_outputs_that_do_not_fit_the_prompts_are_refused() -> None:
    data = reasoning_data(few_questions(), 2)
    with pytest.raises(ValueError, match="^1 outputs for 2 prompts$"):
        data.prepare_actions([["a"]], {0: (ME, "x", 0), 1: (ME, "y", 0)})
