"""The trainer on GenRL's interfaces: it learns, skips what teaches nothing, and comes back to the same bits."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset
from genrl.data import DataManager
from genrl.game.game_manager import DefaultGameManagerMixin
from genrl.rewards import RewardManager
from genrl.state import GameState, WorldState

from swarmd.training.models import LoadedModel, load_model
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Completion, Rollout
from swarmd.training.trainer import OPTIMIZER_FILE, WEIGHTS_FILE, GRPOTrainer
from swarmd.training.weights import WeightsError
from tests.models import save_small_model, small_model, small_tokenizer

LETTERS = "abcd"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer_with(precision="fp32", seed=0, rows_at_once=None, tied=True, kind="qwen2", **recipe):
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = small_model(kind, dtype=dtype, tied=tied)
    values = {"group_size": 6, "max_new_tokens": 8, "temperature": 1.0, "learning_rate": 3e-3, **recipe}
    return GRPOTrainer(
        LoadedModel("small", model, small_tokenizer(), sum(p.numel() for p in model.parameters())),
        Recipe(**values, precision=precision, seed=seed),
        rows_at_once,
    )


def asked(letters=LETTERS):
    return [{"prompt": [{"role": "user", "content": letter}]} for letter in letters]


def share_of_a(text):
    return text.count("a") / 8


def rollouts(trainer, reward=share_of_a, inputs=None):
    inputs = inputs or asked()
    return [
        Rollout(
            trainer.tokens.prompt_ids(question["prompt"]),
            tuple(c.token_ids for c in group),
            tuple(c.logprobs for c in group),
            tuple(reward(c) for c in group),
        )
        for question, group in zip(inputs, trainer.generate(inputs), strict=True)
    ]


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def play(trainer, rounds):
    for number in rounds:
        trainer.begin_round(number)
        trainer.update(rollouts(trainer, reward=lambda text: len(set(text)) % 3))


class Letters(DataManager):
    """A GenRL environment of `stages` stages; the world keeps the letter that is asked."""

    def get_round_data(self):
        return [(letter, WorldState({"letter": letter}, None, None)) for letter in LETTERS]

    def get_eval_data(self):
        return []

    def prepare_input(self, inputs, stage):
        rows, places = [], {}
        for agent, batch in inputs.items():
            for batch_id, nodes in batch.items():
                for node, world in enumerate(nodes):
                    places[len(rows)] = (agent, batch_id, node)
                    rows += asked(world.environment_states["letter"])
        return Dataset.from_list(rows), places

    def prepare_actions(self, outputs, places):
        actions = {}
        for index, (agent, batch_id, _) in places.items():
            actions.setdefault(agent, {}).setdefault(batch_id, []).append(outputs[index])
        return actions

    def prepare_states(self, state, swarm_states):
        return state.get_latest_state()


class ShareOfA(RewardManager):
    def __init__(self, reward=share_of_a):
        self.reward, self.stages = reward, []

    def __call__(self):
        return self.stages

    def __getitem__(self, stage):
        return self.stages[stage]

    def reset(self):
        self.stages = []

    def update_rewards(self, state):
        self.stages = [
            {
                agent: {
                    key: [[self.reward(text) for text in group or ()] for group in nodes]
                    for key, nodes in batch.items()
                }
                for agent, batch in state.get_stage_actions(stage).items()
            }
            for stage in range(state.stage)
        ]


class Tree(DefaultGameManagerMixin):
    def __init__(self, stages):
        self.max_stage = stages


def played_game(trainer, stages=1, agents=("me",)):
    data, tree = Letters(), Tree(stages)
    state = GameState(round=0, stage=0)
    state._init_game(
        data.get_round_data(),
        agent_keys=list(agents),
        game_tree_brancher={
            "terminal_node_decision_function": tree.terminal_game_tree_node_decider,
            "stage_inheritance_function": tree.stage_inheritance_function,
        },
    )
    for stage in range(stages):
        inputs, places = data.prepare_input(state.get_latest_state(), stage)
        state.append_actions(data.prepare_actions(trainer.generate(inputs), places))
        state.advance_stage(data.prepare_states(state, {}))
    return state, data


def test_a_toy_reward_rises_within_sixty_updates():
    trainer = trainer_with()
    means = []
    for number in range(60):
        trainer.begin_round(number)
        batch = rollouts(trainer)
        means.append(sum(sum(r.rewards) for r in batch) / sum(len(r.rewards) for r in batch))
        trainer.update(batch)
    assert sum(means[:3]) / 3 < 0.05
    assert sum(means[-10:]) / 10 > 0.5


def test_bf16_weights_with_stochastic_rounding_learn_the_toy_reward_too():
    trainer = trainer_with("bf16-sr")
    for number in range(60):
        trainer.begin_round(number)
        trainer.update(rollouts(trainer))
    assert trainer.model.dtype == torch.bfloat16
    assert sum(map(share_of_a, (c for group in trainer.generate(asked()) for c in group))) / 24 > 0.4


def test_a_short_rewarded_completion_makes_its_end_token_likelier():
    trainer = trainer_with(max_grad_norm=100.0)
    prompt = trainer.tokens.prompt_ids(asked("a")[0]["prompt"])
    end = trainer.tokens.eos_ids[0]
    short, long = (10, end), (10, 11, 12, 13, 14, 15, 16, 17)

    def end_logprob():
        with torch.no_grad():
            logits = trainer.model(torch.tensor([[*prompt, 10]])).logits[0, -1]
        return float(torch.log_softmax(logits, -1)[end])

    before = end_logprob()
    trainer.update([Rollout(prompt, (short, long), None, (1.0, 0.0))])
    assert end_logprob() > before + 0.01


def test_a_zero_advantage_group_moves_no_weight():
    trainer = trainer_with()
    mixed, *rest = rollouts(trainer, reward=lambda text: text.count("a") + len(set(text)))
    flat = [Rollout(r.prompt_ids, r.completions, r.logprobs, (0.1,) * len(r.rewards)) for r in rest]
    before = weights(trainer)
    report = trainer.update(flat)
    assert (report.stepped, report.skipped, report.groups, report.groups_with_signal) == (
        False, "no group with signal", 3, 0,
    )  # fmt: skip
    assert same(before, weights(trainer))
    assert trainer.optimizer.state == {}
    # Nor does it change what the others teach: not even by being counted.
    twin = trainer_with()
    trainer.update([mixed, *flat])
    twin.update([mixed])
    assert same(weights(twin), weights(trainer))


@pytest.mark.parametrize("nothing", [[], [Rollout((5,), (), None, ())], [Rollout((5,), ((), ()), None, (0.0, 1.0))]])
def test_a_round_with_nothing_in_it_is_a_skipped_update(nothing):
    trainer = trainer_with()
    before = weights(trainer)
    assert not trainer.update(nothing).stepped
    assert same(before, weights(trainer))


def test_own_rollouts_report_no_gap_between_training_and_sampling():
    trainer = trainer_with(temperature=0.8)
    report = trainer.update(rollouts(trainer, reward=lambda text: len(set(text))))
    assert report.stepped
    assert report.logprob_gap < 1e-5
    assert report.clipped_share == 0
    assert report.loss == pytest.approx(0, abs=1e-5)  # ratio 1 everywhere, and all completions of one length


def test_a_gradient_that_is_not_finite_moves_no_weight_and_is_counted():
    trainer = trainer_with()
    batch = rollouts(trainer, reward=lambda text: len(set(text)))
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = float("inf")
    before = weights(trainer)
    report = trainer.update(batch)
    assert (report.stepped, report.skipped) == (False, "gradient not finite")
    assert (trainer.nonfinite_steps, trainer.steps) == (1, 0)
    assert same(before, weights(trainer))


def test_the_gradient_is_clipped_to_the_recipes_norm():
    clipped, free = trainer_with(max_grad_norm=1e-3), trainer_with(max_grad_norm=1e6)
    batch = rollouts(clipped, reward=lambda text: len(set(text)))
    assert clipped.update(batch).grad_norm == pytest.approx(free.update(batch).grad_norm)
    moments = [
        float(sum(s["exp_avg"].square().sum() for s in t.optimizer.state.values())) ** 0.5 for t in (clipped, free)
    ]
    assert moments[0] == pytest.approx(1e-3 * 0.1, rel=1e-3)
    assert moments[1] > moments[0] * 10


@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
@pytest.mark.parametrize("tied", [True, False])
def test_after_save_and_restore_the_same_rounds_give_the_same_weights_bit_for_bit(tmp_path, precision, tied):
    trainer = trainer_with(precision, tied=tied)
    play(trainer, range(2))
    counters = json.loads(json.dumps(trainer.save(tmp_path)))
    kept = weights(trainer)
    play(trainer, range(2, 5))
    other = trainer_with(precision, tied=tied)
    other.restore(tmp_path, counters)
    assert same(weights(other), kept)
    play(other, range(2, 5))
    assert same(weights(other), weights(trainer))
    assert other.steps == trainer.steps == 5
    trainer.restore(tmp_path, counters)
    assert same(weights(trainer), kept)
    play(trainer, range(2, 5))
    assert same(weights(other), weights(trainer))


def test_a_saved_model_loads_through_from_pretrained(tmp_path):
    trainer = trainer_with(kind="qwen3")
    play(trainer, range(1))
    save_small_model(tmp_path)
    trainer.save(tmp_path)
    loaded = load_model("small", tmp_path, torch.float32, torch.device("cpu"))
    assert same({n: p.detach() for n, p in loaded.model.named_parameters()}, weights(trainer))


@pytest.mark.parametrize("file", [WEIGHTS_FILE, OPTIMIZER_FILE])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, file):
    trainer = trainer_with()
    play(trainer, range(1))
    counters = trainer.save(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-5])
    with pytest.raises(WeightsError, match=file):
        trainer_with().restore(tmp_path, counters)


def test_another_models_weights_are_refused(tmp_path):
    trainer = trainer_with(tied=False)
    play(trainer, range(1))
    counters = trainer.save(tmp_path)
    other = trainer_with()
    before = weights(other)
    with pytest.raises(WeightsError, match="unknown"):
        other.restore(tmp_path, counters)
    assert same(before, weights(other))


def test_the_learning_rate_scale_survives_restore_and_scales_the_step(tmp_path):
    trainer = trainer_with(warmup_rounds=4)
    counters = trainer.save(tmp_path)
    trainer.learning_rate_scale = 0.5
    trainer.restore(tmp_path, counters)
    report = trainer.update(rollouts(trainer, reward=lambda text: len(set(text))))
    assert report.learning_rate == pytest.approx(3e-3 / 4 * 0.5)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {report.learning_rate}


def test_sampling_noise_belongs_to_the_round_and_the_seed():
    trainer = trainer_with()

    def texts(number, which=trainer):
        which.begin_round(number)
        return which.generate(asked())

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)
    assert texts(3) != texts(3, trainer_with(seed=1))
    assert texts(3) == texts(3, trainer_with(rows_at_once=6))


def test_a_game_of_two_stages_and_two_agents_is_trained_on_whole():
    trainer = trainer_with()
    state, data = played_game(trainer, stages=2, agents=("me", "you"))
    rewards = ShareOfA(lambda text: float(len(set(text))))
    rewards.update_rewards(state)
    trainer.train(state, data, rewards)
    report = trainer.last_update
    assert report.stepped
    assert report.groups == 2 * 2 * len(LETTERS)
    assert report.logprob_gap < 1e-5


def test_peers_text_and_ragged_groups_are_trained_on():
    trainer = trainer_with()
    state, data = played_game(trainer)
    tree = state.trees["me"]
    own = tree["a"][0][0].actions
    tree["b"][0][0].actions = ["aaaa", "bbb"]  # a peer's: text alone, another size of group
    tree["c"][0][0].actions = [own[0], "a peer's beside an own one", ""]
    tree["d"][0][0].actions = None  # dropped
    rewards = ShareOfA(lambda text: float(len(text)))
    rewards.update_rewards(state)
    rewards.stages[0]["me"]["a"][0] = [1.0] * len(own)  # so that only the peers' teach
    trainer.train(state, data, rewards)
    report = trainer.last_update
    assert (report.groups, report.groups_with_signal) == (3, 2)
    assert report.tokens == (5 + 4) + (len(own[0].token_ids) + 8 + 1)
    assert report.logprob_gap is None


def test_rewards_that_do_not_fit_the_completions_are_an_error_that_names_the_node():
    trainer = trainer_with()
    state, data = played_game(trainer)
    rewards = ShareOfA()
    rewards.update_rewards(state)
    rewards.stages[0]["me"]["c"][0].pop()
    with pytest.raises(ValueError, match="stage 0, agent me, task c, node 0: 5 rewards for 6 completions"):
        trainer.train(state, data, rewards)


def test_answers_come_in_order_with_the_same_noise_each_time_and_tell_progress():
    trainer = trainer_with()
    inputs = asked("aa") + [{"prompt": [{"role": "user", "content": "x" * (n % 9)}]} for n in range(300)]
    told = []
    answers = trainer.answer(inputs, 1.0, lambda done, of: told.append((done, of)))
    assert told == [(256, 302), (302, 302)]
    assert [len(group) for group in answers] == [1] * 302
    trainer.begin_round(9)
    assert trainer.answer(inputs, 1.0) == answers
    greedy = trainer.answer(inputs, 0.0)
    assert greedy[0] == greedy[1]
    assert greedy[100] == trainer.answer(inputs[100:101], 0.0)[0]
    assert isinstance(greedy[0][0], Completion)
    assert trainer.answer([], 0.0) == []


@pytest.mark.parametrize(
    ("completions", "logprobs", "rewards", "message"),
    [
        (((1,), (2,)), None, (1.0,), "1 rewards for 2 completions"),
        (((1, 3), (2,)), ((-1.0,), (-1.0,)), (1.0, 0.0), "sampling log-probs"),
    ],
)
def test_a_rollout_that_does_not_fit_together_is_refused(completions, logprobs, rewards, message):
    with pytest.raises(ValueError, match=message):
        Rollout((5,), completions, logprobs, rewards)
    with pytest.raises(ValueError, match="empty prompt"):
        Rollout((), completions, None, (0.0,) * len(completions))
