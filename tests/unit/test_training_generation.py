"""Sampling: reproducible, the distribution it claims, and independent of how rows are batched."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from swarmd.training import generation
from swarmd.training.generation import sample_groups
from swarmd.training.rollouts import Completion
from swarmd.training.tokens import TokenizerInfo
from tests.models import small_model, small_tokenizer

PROMPTS = [(5, 6, 7, 8, 9), (10, 11), (12, 13, 14)]
SAME_LENGTH = [(5, 6, 7), (10, 11, 40), (12, 13, 14)]


def tokens_of(model):
    return TokenizerInfo.of(small_tokenizer(), model)


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(model, prompts=PROMPTS, *, seed=0, rows_at_once=None, eos=None, length=12):
    info = tokens_of(model) if eos is None else TokenizerInfo(small_tokenizer(), eos)
    return sample_groups(model, info, prompts, 6, length, 1.0, noise(seed), rows_at_once)


def ids(groups):
    return [[completion.token_ids for completion in group] for group in groups]


def test_the_same_generator_gives_the_same_completions_and_another_gives_others():
    model = small_model()
    first = sample(model)
    assert ids(first) == ids(sample(model))
    assert [[c.logprobs for c in g] for g in first] == [[c.logprobs for c in g] for g in sample(model)]
    assert ids(first) != ids(sample(model, seed=1))


def test_every_prompt_gets_its_group_in_order():
    model = small_model()
    groups = sample(model)
    assert [len(group) for group in groups] == [6, 6, 6]
    alone = [sample_groups(model, tokens_of(model), [p], 1, 12, 0.0)[0][0].token_ids for p in PROMPTS]
    together = sample_groups(model, tokens_of(model), PROMPTS, 2, 12, 0.0)
    assert [[c.token_ids for c in group] for group in together] == [[a, a] for a in alone]


@pytest.mark.parametrize("prompts", [PROMPTS, SAME_LENGTH])
def test_slices_of_groups_give_the_same_completions_as_one_batch(prompts):
    model = small_model()
    assert ids(sample(model, prompts, rows_at_once=6)) == ids(sample(model, prompts))
    assert ids(sample(model, prompts, rows_at_once=1)) == ids(sample(model, prompts))


@pytest.mark.parametrize("prompts", [PROMPTS, SAME_LENGTH])
def test_dropping_finished_rows_changes_nothing(prompts, monkeypatch):
    model, ends = small_model(), tuple(range(2, 40))  # rows end at many different steps
    monkeypatch.setattr(generation, "_COMPACT_SHARE", 0.0)
    eager = sample(model, prompts, eos=ends, length=20)
    monkeypatch.setattr(generation, "_COMPACT_SHARE", 2.0)
    never = sample(model, prompts, eos=ends, length=20)
    assert len({len(c.token_ids) for g in eager for c in g}) > 3
    assert ids(eager) == ids(never)
    for group, other in zip(eager, never, strict=True):
        for completion, twin in zip(group, other, strict=True):
            assert completion.finished == twin.finished
            assert torch.allclose(torch.tensor(completion.logprobs), torch.tensor(twin.logprobs), atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_greedy_equals_the_greedy_generate_of_transformers(kind, implementation):
    model = small_model(kind)
    model.set_attn_implementation(implementation)
    ours = sample_groups(model, tokens_of(model), PROMPTS, 1, 15, 0.0)
    for prompt, (completion,) in zip(PROMPTS, ours, strict=True):
        whole = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=15, do_sample=False
        )
        assert list(completion.token_ids) == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    model = small_model()
    count = 4000
    (group,) = sample_groups(model, tokens_of(model), [(5, 6)], count, 1, temperature, noise())
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6]])).logits[0, -1]
    expected = torch.softmax(logits / temperature, -1)
    found = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=len(expected)) / count
    deviation = (expected * (1 - expected) / count).sqrt() + 1 / count
    assert ((found - expected).abs() / deviation).max() < 5
    for completion in group[:50]:
        assert completion.logprobs[0] == pytest.approx(float(expected[completion.token_ids[0]].log()), abs=1e-5)


def test_a_token_of_probability_zero_is_never_taken_at_the_edge():
    logits = torch.full((2, 5), -torch.inf)
    logits[:, 1] = 0.0
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    chosen, logprob = generation._choose(logits, 1.0, edges)
    assert chosen.tolist() == [1, 1]
    assert logprob.tolist() == [0.0, 0.0]


def test_the_end_token_is_among_the_ids_and_not_in_the_text():
    model = small_model()
    every = tuple(range(len(small_tokenizer())))
    for group in sample(model, eos=every):
        for completion in group:
            assert (len(completion.token_ids), completion.finished, str(completion)) == (1, True, "")


def test_an_unfinished_completion_has_max_new_tokens_and_says_so():
    never = (10**6,)
    for group in sample(small_model(), eos=never):
        for completion in group:
            assert (len(completion.token_ids), completion.finished) == (12, False)


def test_all_end_tokens_of_model_and_tokenizer_end_a_completion():
    model = small_model()
    model.generation_config.eos_token_id = [7, 2]
    assert tokens_of(model).eos_ids == (2, 7)


def test_a_tokenizer_without_end_token_is_refused():
    model, tokenizer = small_model(), small_tokenizer()
    tokenizer.eos_token = None
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no EOS token"):
        TokenizerInfo.of(tokenizer, model)


def test_logits_that_are_not_finite_are_an_error_and_not_a_token():
    model = small_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(model)


def test_an_empty_prompt_is_an_error_and_no_prompts_give_no_groups():
    model = small_model()
    with pytest.raises(ValueError, match="empty prompt"):
        sample(model, [(5,), ()])
    assert sample(model, []) == []


def test_a_completion_is_text_that_keeps_its_tokens_when_copied_and_pickled():
    completion = Completion("ab", [1, 2], [-0.1, -0.2], True)
    assert completion == "ab"
    for other in (copy.deepcopy(completion), copy.copy(completion), pickle.loads(pickle.dumps(completion))):
        assert (other, other.token_ids, other.logprobs, other.finished) == ("ab", (1, 2), (-0.1, -0.2), True)
        assert type(other) is Completion


def test_a_peers_text_is_encoded_plainly_with_the_end_token_after_it():
    info = tokens_of(small_model())
    end = info.eos_ids[0]
    encoded = info.completion_ids("a<end>b", 100)
    assert encoded[-1] == end
    assert end not in encoded[:-1]
    assert info.text(encoded[:-1]) == "a<end>b"
    assert info.completion_ids("", 100) == (end,)
    assert len(info.completion_ids("abcdef", 4)) == 4
    assert info.completion_ids("\ud800", 9)[-1] == end
