"""Everything that may last long says in between that it gets on."""

import torch

from swarmd.tasks.scorer import Scorer, ScoreRequest
from swarmd.training.models import LoadedModel
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Rollout
from swarmd.training.trainer import GRPOTrainer
from tests.models import small_model, small_tokenizer

TOKENS = 12


def trainer(beats: list[int], token_budget: int = 4096) -> GRPOTrainer:
    model = small_model()
    torch.set_num_threads(1)
    loaded = LoadedModel("small", model, small_tokenizer(), 1)
    made = GRPOTrainer(loaded, Recipe(4, TOKENS, 1.0, 1e-4, token_budget=token_budget), rows_at_once=4)
    made.beat = lambda: beats.append(1)
    return made


def asked(letters: str) -> list[dict[str, object]]:
    return [{"prompt": [{"role": "user", "content": letter}]} for letter in letters]


def test_sampling_beats_once_a_token_of_each_batch() -> None:
    beats: list[int] = []
    groups = trainer(beats).generate(asked("abc"))
    assert len(beats) == sum(max(len(c.token_ids) for c in group) for group in groups)


def test_an_evaluation_beats_once_a_token_of_each_batch() -> None:
    beats: list[int] = []
    answers = trainer(beats).answer(asked("abcdefgh"), 0.0)
    longest = max(len(group[0].token_ids) for group in answers)
    assert longest < len(beats) <= 2 * longest


def test_training_beats_once_a_micro_batch() -> None:
    beats: list[int] = []
    learner = trainer(beats, token_budget=40)
    groups = learner.generate(asked("abc"))
    prompts = [learner.tokens.prompt_ids(question["prompt"]) for question in asked("abc")]
    beats.clear()
    report = learner.update([
        Rollout(prompt, tuple(c.token_ids for c in group), tuple(c.logprobs for c in group), (0.0, 1.0, 0.0, 1.0))
        for prompt, group in zip(prompts, groups, strict=True)
    ])  # fmt: skip
    assert report.micro_batches > 1
    assert len(beats) == report.micro_batches


def test_scoring_beats_once_an_answer_of_the_child() -> None:
    beats: list[int] = []
    request = ScoreRequest("chain_sum", "<answer>3</answer>", "3", {})
    with Scorer(beat=lambda: beats.append(1)) as scorer:
        assert scorer.score([]) == []
        assert beats == []
        scorer.score([request] * 600)
    assert len(beats) >= 3, "it is sent 256 at once"
