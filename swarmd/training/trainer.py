"""The GRPO trainer: answers a round's prompts, and learns from the round's scored answers."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from genrl.data import DataManager
from genrl.rewards import RewardManager
from genrl.state import GameState
from genrl.trainer import TrainerModule

from swarmd.training.batching import Row
from swarmd.training.gathering import plausible, prompts_of, rollouts_of, rows_of, short_enough
from swarmd.training.generation import sample_groups
from swarmd.training.gradient import accumulate_gradient, all_likely
from swarmd.training.ladder import Ladder, Rung, SamplingRoom, out_of_memory
from swarmd.training.models import LoadedModel
from swarmd.training.optimizers import convert, learning_rate, make_optimizer, prepare_states
from swarmd.training.plausibility import Plausibility
from swarmd.training.recipe import Precision, Recipe
from swarmd.training.rollouts import Completion, Rollout
from swarmd.training.tokens import TokenizerInfo
from swarmd.training.weights import load_optimizer, load_weights, save_optimizer, save_weights

WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"

# Rows of an evaluation sampled together where memory sets no tighter bound.
_EVALUATION_ROWS = 256
_UNBOUNDED_ROWS = 1 << 20

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class UpdateReport:
    """What one update did.

    Attributes:
        stepped: whether the weights moved.
        skipped: why not, "" when they did.
        groups, groups_with_signal: groups given, peers' among them, and those whose rewards differ.
        implausible: groups of peers that were left out for a completion that this policy could not have written, by
            peer; too_long: those that were for its length alone.
        tokens: completion tokens trained on.
        loss, grad_norm: of the round, the norm before clipping; None where there was no gradient.
        clipped_share: of the tokens, whose ratio was clipped, 0..1.
        logprob_gap: mean |training - sampling log-prob| of own tokens: 1e-6 in fp32 when all is well.
        entropy: of the policy on own tokens, in nats a token.
        learning_rate: of this step, warm-up and scale included.
        micro_batches, token_budget: how the round was cut.
    """

    stepped: bool
    skipped: str
    groups: int
    groups_with_signal: int
    tokens: int
    loss: float | None
    grad_norm: float | None
    clipped_share: float | None
    logprob_gap: float | None
    entropy: float | None
    learning_rate: float
    micro_batches: int
    token_budget: int
    implausible: Mapping[str, int] = field(default_factory=dict)
    too_long: Mapping[str, int] = field(default_factory=dict)


class GRPOTrainer(TrainerModule):
    """GenRL's trainer interface over one causal language model.

    Every noise is derived from (recipe.seed, round) and every step from the state that `save` writes, so a
    round played again from a checkpoint moves the weights to the same bits.

    Attributes:
        learning_rate_scale: factor on the recipe's rate; whoever rolls back after a collapse lowers it.
        last_update: report of the last `train` or `update`.
        steps: optimizer steps done.
        nonfinite_steps: steps left out because the gradient was not finite.
        stepping: true while the weights move or change their format: who interrupts the round must wait for its end.
        ladder: how much is done at once; who watches the memory joins here, and every lack of memory steps it down.
        own: the agent that stands for this node in the games; the others are peers. None: all do.
        parameters: how many, tied ones counted once.
        beat: called after each token step and each micro-batch; who watches the progress sets it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        recipe: Recipe,
        rows_at_once: int | None = None,
        leanest: Precision | None = None,
    ) -> None:
        """Takes over the model: it stays in eval mode, where dropout cannot part training from sampling.

        Args:
            rows_at_once: bound on completions sampled together; None: a whole round.
            leanest: the precision that may be gone down to where memory runs short; None: the recipe's own.

        Raises:
            ValueError: the weights' dtype does not fit the recipe, or there is no end token.
        """
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.recipe = recipe
        self.model = loaded.model.eval()
        self.tokens = TokenizerInfo.of(loaded.tokenizer, loaded.model)
        self.optimizer = make_optimizer(self.model, recipe)
        self.learning_rate_scale = 1.0
        self.last_update = _nothing("no update yet", recipe)
        self.steps = 0
        self.nonfinite_steps = 0
        self.stepping = False
        self.parameters = loaded.parameters
        self.own: Any = None
        self.beat: Callable[[], None] = _unwatched
        top = Rung(recipe.token_budget, rows_at_once or _UNBOUNDED_ROWS, recipe.max_new_tokens, recipe.precision)
        self.ladder = Ladder(top, recipe.group_size, leanest or recipe.precision, loaded.name, self._convert)
        self.begin_round(0)

    def begin_round(self, round: int) -> None:
        """Sets the sampling noise to the round's. A safe point: nothing of a round is in work."""
        self.ladder.ease(between_rounds=True)
        self._generator = self._noise("sampling", round)
        self._sampled: list[tuple[float, ...]] = []  # the log-probs of what was sampled in this round

    def generate(self, inputs: Any) -> list[list[Completion]]:
        """Samples a group of completions for each input.

        Args:
            inputs: what a DataManager's `prepare_input` returns first: rows, chat messages under "prompt".
        """
        recipe, prompts = self.recipe, prompts_of(inputs, self.tokens)
        self.ladder.rows = len(prompts) * recipe.group_size
        groups = sample_groups(
            self.model, self.tokens, prompts, recipe.group_size, recipe.max_new_tokens, recipe.temperature,
            self._generator, beat=self.beat, room=SamplingRoom(self.ladder),
        )  # fmt: skip
        self._sampled += [completion.logprobs for group in groups for completion in group]
        return groups

    def answer(
        self, inputs: Any, temperature: float, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Completion]]:
        """One completion for each input, as groups of one, to be scored and not trained on.

        The noise is the same at every call: two evaluations differ by the weights alone.

        Args:
            inputs: as for `generate`.
            temperature: 0 for the most probable tokens.
            progress: told (done, of) after each batch.
        """
        prompts = prompts_of(inputs, self.tokens)
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        generator = self._noise("evaluation", 0)
        room = SamplingRoom(self.ladder, self.recipe.max_new_tokens)
        answers: dict[int, list[Completion]] = {}
        for start in range(0, len(prompts), _EVALUATION_ROWS):
            some = by_length[start : start + _EVALUATION_ROWS]
            groups = sample_groups(
                self.model, self.tokens, [prompts[index] for index in some], 1, self.recipe.max_new_tokens,
                temperature, generator, beat=self.beat, room=room,
            )  # fmt: skip
            answers.update(zip(some, groups, strict=True))
            if progress is not None:
                progress(len(answers), len(prompts))
        return [answers[index] for index in range(len(prompts))]

    def train(self, state: GameState, data_manager: DataManager, reward_manager: RewardManager) -> None:
        """Learns from all groups of a finished game; `last_update` tells what came of it.

        Raises:
            ValueError: rewards that do not fit the completions, or are not finite.
        """
        longest = self.ladder.now.max_new_tokens
        self.update(rollouts_of(state, data_manager, reward_manager, self.tokens, longest, self.own))

    def update(self, rollouts: Sequence[Rollout]) -> UpdateReport:
        """One GRPO step on the groups that have a signal; without any, or none at all, no step.

        Raises:
            ValueError: a reward that is not finite.
            torch.OutOfMemoryError, MemoryError: not even one completion fits into memory, and the ladder has ended.
                No weight has moved.
        """
        self.last_update = self._update(rollouts)
        return self.last_update

    def _update(self, rollouts: Sequence[Rollout]) -> UpdateReport:
        recipe, rate = self.recipe, learning_rate(self.recipe, self.steps, self.learning_rate_scale)
        groups = [rollout for rollout in rollouts if rows_of(rollout)]
        measure = Plausibility.of(self._sampled, self.ladder.now.max_new_tokens)
        short, too_long = short_enough(groups, measure)
        if not short:
            return replace(_nothing("no group with signal", recipe, len(rollouts), rate), too_long=too_long)
        self.optimizer.zero_grad(set_to_none=True)
        self._rows(short)
        kept, implausible = plausible(short, None if measure is None else lambda rows: self._likely(rows, measure))
        if not kept:
            nothing = _nothing("nothing plausible", recipe, len(rollouts), rate)
            return replace(nothing, implausible=implausible, too_long=too_long)
        done = accumulate_gradient(
            self.model, self._rows(kept), recipe, lambda: self.ladder.now.token_budget, self._after_micro_batch,
            self._shrink,
        )  # fmt: skip
        self._prepare_step()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.max_grad_norm))
        skipped = ""
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.stepping = True
            self.optimizer.step()
            self.steps += 1
            self.stepping = False
        else:
            skipped = "gradient not finite"
            self.nonfinite_steps += 1
            _log.warning(
                "a round's gradient is not finite, so the weights stay as they are (%d times so far)",
                self.nonfinite_steps,
            )
        self.optimizer.zero_grad(set_to_none=True)
        return UpdateReport(
            stepped=not skipped,
            skipped=skipped,
            groups=len(rollouts),
            groups_with_signal=len(groups),
            tokens=done.tokens,
            loss=done.loss,
            grad_norm=norm,
            clipped_share=done.clipped / done.tokens,
            logprob_gap=done.logprob_gap,
            entropy=done.entropy,
            learning_rate=rate,
            micro_batches=done.micro_batches,
            token_budget=done.token_budget,
            implausible=implausible,
            too_long=too_long,
        )

    def _likely(self, rows: Sequence[Row], measure: Plausibility) -> bool:
        return all_likely(
            self.model, rows, self.recipe.temperature, lambda: self.ladder.now.token_budget, measure,
            self._after_micro_batch, self._shrink,
        )  # fmt: skip

    def _rows(self, groups: Sequence[Rollout]) -> list[Row]:
        """Their completions; the ladder is told how much is going to be computed."""
        rows = [row for rollout in groups for row in rows_of(rollout)]
        self.ladder.row = max(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
        self.ladder.tokens = len(rows) * self.ladder.row
        return rows

    def _after_micro_batch(self) -> None:
        self.beat()
        self.ladder.ease()

    def _shrink(self, error: BaseException) -> None:
        self.ladder.shrink(error, "training")

    def _prepare_step(self) -> None:
        """Makes the optimizer's states, in less memory where it has to be; the gradients stay."""
        while True:
            try:
                return prepare_states(self.optimizer)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                shortage = error.with_traceback(None)
            self._shrink(shortage)

    def step_down(self, reason: str) -> bool:
        """Does with less memory from now on; False where nothing is left to give up. Between rounds only.

        reason: what happened, for the message.
        """
        return self.ladder.step_down(reason)

    def _convert(self, precision: Precision) -> None:
        self.stepping = True
        try:
            recipe = replace(self.recipe, precision=precision)
            self.optimizer = convert(self.optimizer, self.model, recipe)
            self.recipe = recipe
        finally:
            self.stepping = False

    def evaluate(self, state: GameState, data_manager: DataManager, reward_manager: RewardManager) -> None:
        """GenRL's hook after training. Held-out scoring is the game's, which asks `answer`."""

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes weights and optimizer into an existing folder; returns the counters, fit for JSON.

        Raises:
            OSError, safetensors.SafetensorError: they could not be written.
        """
        save_weights(self.model, Path(directory) / WEIGHTS_FILE)
        save_optimizer(self.optimizer, self.model, Path(directory) / OPTIMIZER_FILE)
        return {"steps": self.steps, "nonfinite_steps": self.nonfinite_steps}

    def restore(self, directory: Path, counters: dict[str, Any]) -> None:
        """Back to what `save` wrote, in the precision of now. The learning-rate scale stays as it is.

        Raises:
            WeightsError: the files are damaged or another model's.
            OSError: they cannot be read.
        """
        load_weights(self.model, Path(directory) / WEIGHTS_FILE)
        load_optimizer(self.optimizer, self.model, Path(directory) / OPTIMIZER_FILE)
        self.steps = int(counters["steps"])
        self.nonfinite_steps = int(counters["nonfinite_steps"])

    def start_over(self, base: LoadedModel) -> None:
        """Takes the weights of a base model of the same shape, with a fresh optimizer. The scale stays as it is."""
        self.model.load_state_dict(base.model.state_dict())
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.steps = 0

    @classmethod
    def load(cls, load_dir: str) -> GRPOTrainer:
        """GenRL's constructor from a folder, which has no place for a recipe: use `restore`."""
        raise NotImplementedError("make a GRPOTrainer of a loaded model and a recipe, then call restore()")

    def _noise(self, purpose: str, round: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.recipe.seed}/{purpose}/{round}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _unwatched() -> None:
    """Nobody wants to know that the work gets on."""


def _nothing(why: str, recipe: Recipe, groups: int = 0, rate: float = 0.0) -> UpdateReport:
    return UpdateReport(
        stepped=False, skipped=why, groups=groups, groups_with_signal=0, tokens=0, loss=None, grad_norm=None,
        clipped_share=None, logprob_gap=None, entropy=None, learning_rate=rate, micro_batches=0,
        token_budget=recipe.token_budget,
    )  # fmt: skip
