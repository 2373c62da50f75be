"""Where memory runs short the trainer does with less, loses no round, and the gradient stays what it was."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from swarmd.system.pressure import Reading
from swarmd.training import generation, optimizers
from swarmd.training.ladder import Ladder, MemorySteps, Rung
from swarmd.training.models import LoadedModel
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Rollout
from swarmd.training.trainer import GRPOTrainer
from tests.models import small_model, small_tokenizer

GIB = 1 << 30
STEPS = MemorySteps("small", GIB, Rung(500, 12, 32, "bf16-sr"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Gauge:
    """Near whenever the test says so."""

    def __init__(self):
        self.near = False
        self.rests = 0
        self.use = 950

    def take(self):
        taken, self.near = (Reading(self.use, 1000, "test") if self.near else None), False
        return taken

    def rest(self):
        self.rests += 1


def trainer_with(precision="fp32", leanest="bf16-sr", **recipe):
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    values = {"group_size": 6, "max_new_tokens": 32, "temperature": 1.0, "learning_rate": 3e-3, **recipe}
    loaded = LoadedModel("small", small_model(dtype=dtype), small_tokenizer(), 1)
    return GRPOTrainer(loaded, Recipe(**values, precision=precision), 24, leanest)


def asked(count=4):
    return [{"prompt": [{"role": "user", "content": "abcdefgh"[:n]}]} for n in range(1, count + 1)]


def rollouts(trainer):
    inputs = asked()
    return [
        Rollout(
            trainer.tokens.prompt_ids(question["prompt"]),
            tuple(c.token_ids for c in group),
            tuple(c.logprobs for c in group),
            tuple(float(len(set(c)) % 3) for c in group),
        )
        for question, group in zip(inputs, trainer.generate(inputs), strict=True)
    ]


def rungs(ladder):
    found = [ladder.now]
    while ladder.step_down("short"):
        found.append(ladder.now)
    return found


def test_portions_shrink_first_then_completions_then_the_number_format(caplog):
    converted = []
    ladder = Ladder(Rung(4000, 32, 128, "fp32"), 8, "bf16-sr", "small", converted.append)
    ladder.tokens, ladder.rows, ladder.row = 2000, 32, 300
    with caplog.at_level("WARNING", logger="swarmd"):
        found = rungs(ladder)
    assert found == [
        Rung(4000, 32, 128, "fp32"),
        Rung(1000, 16, 128, "fp32"),  # half of what was in work, not of what was allowed
        Rung(500, 8, 128, "fp32"),
        Rung(300, 8, 128, "fp32"),
        Rung(300, 8, 64, "fp32"),
        Rung(300, 8, 32, "fp32"),
        Rung(300, 8, 32, "bf16-sr"),
    ]
    assert converted == ["bf16-sr"]
    assert not ladder.step_down("short")
    told = [record.event_fields["what"] for record in caplog.records]
    assert told[:2] == ["token_budget, rows_at_once"] * 2
    assert told[-3:] == ["max_new_tokens", "precision", "nothing"]  # the end once
    first = caplog.records[0].event_fields
    assert (first["from"]["token_budget"], first["to"]["token_budget"]) == (4000, 1000)


def test_short_completions_and_a_demanded_precision_are_kept():
    ladder = Ladder(Rung(100, 4, 16, "fp32"), 4, "fp32", "small", pytest.fail)
    ladder.row = 100
    assert rungs(ladder) == [Rung(100, 4, 16, "fp32")]


def test_each_step_is_remembered_with_its_limit_and_the_next_start_begins_there():
    kept = []
    first = trainer_with()
    first.ladder.watch(None, GIB, kept.append)
    for _ in range(20):
        first.step_down("short")
    assert kept[-1].rung.precision == "bf16-sr"
    steps = MemorySteps.from_json(kept[-1].to_json())
    assert steps == kept[-1]
    second = trainer_with()
    second.ladder.resume(steps, GIB)
    assert second.ladder.now == first.ladder.now
    assert second.model.dtype == torch.bfloat16
    grown, other, demanded = trainer_with(), trainer_with(), trainer_with(leanest="fp32")
    grown.ladder.resume(steps, 2 * GIB)
    other.ladder.resume(MemorySteps("another", GIB, steps.rung), GIB)
    assert grown.ladder.now == other.ladder.now == trainer_with().ladder.now
    demanded.ladder.resume(steps, GIB)
    assert (demanded.ladder.now.precision, demanded.model.dtype) == ("fp32", torch.float32)


@pytest.mark.parametrize(
    "text",
    [None, "", "x", "[]", "{}", "7", "[" * 100_000, STEPS.to_json().replace("500", "-1"),
     STEPS.to_json().replace("500", '"many"'), STEPS.to_json().replace("bf16-sr", "fp8"),
     STEPS.to_json().replace('"small"', "null")],
)  # fmt: skip
def test_a_damaged_memory_of_steps_is_none(text):
    assert MemorySteps.from_json(text) is None


def test_when_memory_comes_near_while_sampling_the_batch_is_cut_and_gives_the_same_completions():
    plain, watched = trainer_with(), trainer_with()
    gauge, beats = Gauge(), []
    watched.ladder.watch(gauge, GIB, lambda steps: None)

    def beat():
        beats.append(1)
        gauge.near = len(beats) == 5

    watched.beat = beat
    got, want = watched.generate(asked()), plain.generate(asked())
    assert watched.ladder.now.rows_at_once == 12
    assert [[c.token_ids for c in group] for group in got] == [[c.token_ids for c in group] for group in want]


def test_when_memory_comes_near_between_micro_batches_the_rest_are_smaller_and_the_step_the_same():
    plain, watched = trainer_with(token_budget=300), trainer_with(token_budget=300)
    gauge = Gauge()
    watched.ladder.watch(gauge, GIB, lambda steps: None)
    batch = rollouts(plain)
    rollouts(watched)
    watched.beat = lambda: setattr(gauge, "near", watched.ladder.steps == 0)
    want, got = plain.update(batch), watched.update(batch)
    assert watched.ladder.steps == 1
    assert got.micro_batches > want.micro_batches
    assert got.grad_norm == pytest.approx(want.grad_norm, rel=1e-5)


@pytest.mark.parametrize(("uses", "steps"), [((950, 950, 940, 955), 1), ((950, 970, 970, 990), 3)])
def test_use_that_holds_near_the_end_costs_one_step_and_use_that_grows_more(uses, steps):
    trainer, gauge = trainer_with(), Gauge()
    trainer.ladder.watch(gauge, GIB, lambda steps: None)
    for gauge.use in uses:
        gauge.near = True
        trainer.begin_round(1)
        assert not gauge.near
    assert trainer.ladder.steps == steps


def test_the_number_format_changes_between_rounds_only():
    trainer, gauge = trainer_with(max_new_tokens=16), Gauge()
    trainer.ladder.watch(gauge, GIB, lambda steps: None)
    while trainer.ladder.can_cut or (not trainer.ladder.tight and trainer.ladder.now.rows_at_once > 6):
        trainer.step_down("short")
    trainer.ladder.row = trainer.ladder.now.token_budget
    gauge.near = True
    trainer.generate(asked())
    assert gauge.near  # kept
    assert trainer.model.dtype == torch.float32
    trainer.begin_round(1)
    assert not gauge.near
    assert trainer.model.dtype == torch.bfloat16
    assert trainer.update(rollouts(trainer)).stepped


def narrow(monkeypatch, most_rows, error):
    """Sampling that fails with more rows than memory is said to hold."""
    real = generation.hidden_states

    def hidden_states(model, **inputs):
        if len(inputs["input_ids"]) > most_rows:
            raise error
        return real(model, **inputs)

    monkeypatch.setattr(generation, "hidden_states", hidden_states)


ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(),
          RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_while_sampling_or_evaluating_repeats_that_work_in_smaller_batches(error, monkeypatch):
    plain, short = trainer_with(), trainer_with()
    want, answers = plain.generate(asked()), plain.answer(asked(8), 1.0)
    narrow(monkeypatch, 6, error)
    assert short.generate(asked()) == want
    assert short.ladder.now.rows_at_once == 6
    assert short.answer(asked(8), 1.0) == answers
    narrow(monkeypatch, 2, error)
    # Fewer at once than one group: completions keep their length, or scores could not be compared.
    fewer = trainer_with()
    assert fewer.answer(asked(8), 1.0) == answers
    assert fewer.ladder.now.max_new_tokens == 32


def test_out_of_memory_at_the_ladders_end_is_raised(monkeypatch):
    narrow(monkeypatch, 0, ERRORS[0])
    with pytest.raises(torch.OutOfMemoryError):
        trainer_with().generate(asked())


def test_no_memory_for_the_optimizers_first_states_costs_no_round(monkeypatch):
    plain, short = trainer_with(), trainer_with()
    batch = rollouts(plain)
    rollouts(short)
    failures = [MemoryError(), MemoryError()]
    real = torch.zeros_like

    def zeros_like(tensor, **options):
        if failures:
            raise failures.pop()
        return real(tensor, **options)

    monkeypatch.setattr(optimizers.torch, "zeros_like", zeros_like)
    assert short.update(batch).stepped
    monkeypatch.undo()
    plain.update(batch)
    assert short.ladder.steps == 2
    for one, other in zip(plain.model.parameters(), short.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("kept", "now"), [("fp32", "bf16-sr"), ("bf16-sr", "fp32")])
def test_a_checkpoint_of_one_number_format_goes_on_in_the_other(kept, now, tmp_path):
    first, second = trainer_with(kept), trainer_with(now)
    first.update(rollouts(first))
    second.restore(tmp_path, first.save(tmp_path))
    assert second.steps == 1
    weights = dict(second.model.named_parameters())
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight.to(torch.bfloat16), weights[name].to(torch.bfloat16))
        state, theirs = first.optimizer.state[weight], second.optimizer.state[weights[name]]
        assert theirs["exp_avg"].dtype == weights[name].dtype
        assert torch.equal(state["exp_avg"].to(torch.bfloat16), theirs["exp_avg"].to(torch.bfloat16))
        assert (theirs["step"].dtype, float(theirs["step"])) == (torch.float32, 1.0)
    assert second.update(rollouts(second)).stepped


def test_the_weights_change_their_format_in_place_with_the_optimizers_states():
    trainer = trainer_with()
    trainer.update(rollouts(trainer))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    moments = {name: trainer.optimizer.state[p]["exp_avg"].clone() for name, p in trainer.model.named_parameters()}
    inverse = trainer.model.model.rotary_emb.inv_freq
    while trainer.step_down("short"):
        pass
    assert trainer.recipe.precision == "bf16-sr"
    assert inverse.dtype == torch.float32  # as transformers keeps it: positions in bf16 would be others
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, before[name].to(torch.bfloat16))
        assert torch.equal(trainer.optimizer.state[p]["exp_avg"], moments[name].to(torch.bfloat16))
    assert trainer.update(rollouts(trainer)).stepped
    assert trainer.optimizer.param_groups[0]["params"][0].dtype == torch.bfloat16


LIMITED = """
    import os, resource, sys
    os.environ["MALLOC_ARENA_MAX"] = "1"
    sys.path.insert(0, sys.argv[1])
    import random, torch
    torch.set_num_threads(1)
    from swarmd.training.models import LoadedModel
    from swarmd.training.recipe import Recipe
    from swarmd.training.rollouts import Rollout
    from swarmd.training.trainer import GRPOTrainer
    from tests.models import small_model, small_tokenizer

    chance = random.Random(0)
    def some(count):
        return tuple(chance.randrange(3, 90) for _ in range(count))
    def groups(length):
        return [Rollout(some(20), tuple(some(length) for _ in range(8)), None, tuple(map(float, range(8))))
                for _ in range(4)]
    def trainer():
        recipe = Recipe(8, 160, 1.0, 1e-5, token_budget=100_000)
        return GRPOTrainer(LoadedModel("small", small_model(hidden=128), small_tokenizer(), 0), recipe)
    def moments(trainer):
        return [trainer.optimizer.state[p]["exp_avg"] for p in trainer.model.parameters()]

    free, short, batch, small = trainer(), trainer(), groups(160), groups(2)
    free.update(small)  # what a first use allocates for good
    short.update(small)
    whole = free.update(batch)
    import ctypes, gc
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    mapped = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv[2]), resource.RLIM_INFINITY))
    parts = short.update(batch)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert whole.stepped and parts.stepped and whole.micro_batches == 1
    assert abs(whole.grad_norm - parts.grad_norm) < 1e-5 * whole.grad_norm, (whole, parts)
    for one, other in zip(moments(free), moments(short), strict=True):
        assert (one - other).abs().max() < 1e-5 * one.abs().max()
    print(short.ladder.steps, parts.micro_batches, parts.token_budget)
"""


def test_where_the_kernel_refuses_memory_for_real_the_round_is_finished_with_the_same_gradient():
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(root), str(60 << 20)]
    run = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    steps, micro_batches, budget = map(int, run.stdout.split())
    assert steps >= 1
    assert micro_batches > 1
    assert budget < 32 * 180
