"""The memory plan: predicted before anything is loaded, the best mode that fits, and a message when none does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from transformers import Qwen2Config

from swarmd.system.exits import ConfigurationError
from swarmd.system.pressure import NEAR
from swarmd.training.memory import (
    DoesNotFit,
    ModelShape,
    RoundShape,
    choose_plan,
    predict,
    predict_sampling,
    predict_training,
)
from tests.models import small_model

GIB = 1 << 30
ROUND = RoundShape(prompts=8, group_size=8, prompt_tokens=300, max_new_tokens=512)


@pytest.fixture(scope="module")
def half_billion():
    """The shape of Qwen2.5-0.5B."""
    return ModelShape.of(
        Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip


def test_what_runs_beside_takes_its_part_of_the_limit_and_of_the_prediction(half_billion):
    beside, limit = 250 << 20, 9 * GIB
    plan = choose_plan(half_billion, ROUND, limit, beside_bytes=beside)
    counted = predict(half_billion, ROUND, plan.mode, plan.token_budget, plan.rows_at_once)
    assert plan.predicted_bytes == counted + beside <= limit * NEAR
    least = predict(half_billion, ROUND, "bf16-sr", ROUND.row, ROUND.group_size)
    just = int(least / NEAR) + (1 << 20)
    choose_plan(half_billion, ROUND, just, "bf16-sr")
    with pytest.raises(DoesNotFit, match=f"at least {(least + beside) / 2**30:.1f} GiB") as caught:
        choose_plan(half_billion, ROUND, just, "bf16-sr", beside)
    assert "of which 250 MiB are for the network process and p2pd" in str(caught.value)
    with pytest.raises(DoesNotFit) as caught:
        choose_plan(half_billion, ROUND, least // 2, "bf16-sr")
    assert "p2pd" not in str(caught.value)


def test_the_shape_counts_every_parameter_once_without_making_the_model(half_billion):
    assert half_billion.parameters == 494_032_768
    assert (half_billion.query_width, half_billion.key_width) == (896, 128)
    model = small_model()
    assert ModelShape.of(model.config).parameters == sum(p.numel() for p in model.parameters())


def test_fp32_with_large_batches_is_taken_where_there_is_room(half_billion):
    plan = choose_plan(half_billion, ROUND, 400 * GIB)
    assert (plan.mode, plan.token_budget, plan.rows_at_once) == ("fp32", 16384, 64)


def test_batches_shrink_before_the_number_format_does(half_billion):
    plan = choose_plan(half_billion, ROUND, 14 * GIB)
    assert plan.mode == "fp32"
    assert plan.token_budget < 16384
    assert choose_plan(half_billion, ROUND, 9 * GIB).mode == "bf16-sr"


@pytest.mark.parametrize("limit", [gib * GIB for gib in (9, 10, 12, 16, 24, 48)])
def test_a_plan_fits_its_limit_and_says_its_own_prediction(half_billion, limit):
    plan = choose_plan(half_billion, ROUND, limit)
    assert plan.predicted_bytes <= limit * NEAR  # where the node would begin to give up something
    assert plan.predicted_bytes == predict(half_billion, ROUND, plan.mode, plan.token_budget, plan.rows_at_once)
    assert plan.token_budget >= ROUND.row
    assert plan.rows_at_once % ROUND.group_size == 0


def test_more_of_anything_never_needs_less(half_billion):
    for mode in ("fp32", "bf16-sr"):
        training = [predict_training(half_billion, ROUND, mode, budget) for budget in (812, 2000, 9000)]
        sampling = [predict_sampling(half_billion, ROUND, mode, rows) for rows in (8, 16, 64)]
        assert training == sorted(training)
        assert sampling == sorted(sampling)
    assert predict(half_billion, ROUND, "bf16-sr", 812, 8) < predict(half_billion, ROUND, "fp32", 812, 8)


@pytest.mark.parametrize("requested", ["auto", "bf16-sr"])
def test_nothing_that_fits_is_a_configuration_error_that_names_what_would(half_billion, requested):
    with pytest.raises(DoesNotFit) as caught:
        choose_plan(half_billion, ROUND, 2 * GIB, requested)
    message = str(caught.value)
    assert isinstance(caught.value, ConfigurationError)
    assert "494 million parameters need at least" in message
    assert "the limit is 2.0 GiB" in message
    assert "a model of at most about" in message
    with pytest.raises(DoesNotFit, match="set memory.limit higher"):
        choose_plan(half_billion, ROUND, GIB // 4, requested)


def test_a_requested_mode_is_kept_and_the_leaner_one_only_named(half_billion):
    assert choose_plan(half_billion, ROUND, 400 * GIB, "bf16-sr").mode == "bf16-sr"
    with pytest.raises(DoesNotFit, match="memory.plan: bf16-sr needs less"):
        choose_plan(half_billion, ROUND, 8 * GIB, "fp32")


MEASURE = """
    import os, sys
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.path.insert(0, sys.argv[1])
    import random, torch
    torch.set_num_threads(1)
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from swarmd.training.memory import RUNTIME_BYTES, ModelShape, RoundShape, predict
    from swarmd.training.models import LoadedModel
    from swarmd.training.recipe import Recipe
    from swarmd.training.rollouts import Rollout
    from swarmd.training.trainer import GRPOTrainer
    from tests.models import small_tokenizer

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    mode, runtime = sys.argv[2], peak()
    config = Qwen2Config(
        vocab_size=20000, hidden_size=384, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=2,
    )
    dtype = torch.float32 if mode == "fp32" else torch.bfloat16
    torch.set_default_dtype(dtype)
    model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    recipe = Recipe(8, 8, 1.0, 1e-5, precision=mode, token_budget=1024)
    trainer = GRPOTrainer(LoadedModel("measured", model, small_tokenizer(), 0), recipe)
    ids = random.Random(0)
    def some(count):
        return tuple(ids.randrange(3, 20000) for _ in range(count))
    for _ in range(2):
        groups = [Rollout(some(24), tuple(some(8) for _ in range(8)), None, tuple(range(8))) for _ in range(4)]
        assert trainer.update(groups).stepped
    predicted = predict(ModelShape.of(config), RoundShape(4, 8, 24, 8), mode, 1024, 32)
    print(peak() - runtime, predicted - RUNTIME_BYTES)
"""


@pytest.mark.parametrize("mode", ["fp32", "bf16-sr"])
def test_the_prediction_is_near_the_measured_peak(mode):
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(root), mode],
        # Freed tensors go back to the system at once: measured are the living ones, not the allocator's habits.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured, predicted = map(int, run.stdout.split())
    print(f"{mode}: measured {measured >> 20} MiB, predicted {predicted >> 20} MiB")
    assert 0.9 < predicted / measured < 1.3
