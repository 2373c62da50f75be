"""Makes the embedded model: a small Qwen3 with a tokenizer of its own, warmed up on reasoning-gym tasks.

    make embedded-model          (or: python packaging/embedded-model/make.py --out DIR)

Supervised learning on the tasks of the `embedded` preset, only until the model answers some of them: what is left is
for reinforcement learning to find. Held-out questions never occur in it. Everything is seeded; on one machine with
one thread the same seed gives the same weights.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import sys
import tempfile
from pathlib import Path

from swarmd.system.startup import prepare_process

prepare_process()

import torch  # noqa: E402  (the environment comes first)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from tqdm import tqdm  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from swarmd.tasks.mix import TaskMix  # noqa: E402
from swarmd.tasks.mix_files import preset  # noqa: E402
from swarmd.tasks.provenance import Task, seed_of  # noqa: E402
from swarmd.training.models import embedded_folder  # noqa: E402

VOCABULARY = 768
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LEARNING_RATE = 2e-3
BATCH = 128
TASKS = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=embedded_folder(), help="where to write it (default: the package)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    mix = TaskMix(preset("embedded"))
    tasks = [
        mix.draw(seed_of("swarmd/embedded-model", options.seed, number))
        for number in tqdm(range(TASKS), desc="tasks", disable=not sys.stderr.isatty())
    ]
    tokenizer = make_tokenizer(tasks)
    model = make_model(tokenizer)
    warm_up(model, [encode(tokenizer, task) for task in tasks], tokenizer, options.steps, random.Random(options.seed))
    write(model, tokenizer, options.out)


def make_tokenizer(tasks: list[Task]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that keeps every digit a token and merges the questions' fixed phrases whole.

    Ten tokens a question instead of forty make every round some three times as fast.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9]|[^0-9]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((task.question for task in tasks[:4000]), trainer)
    # Ordinary tokens, not special ones: the scorer has to see them in the text.
    tokenizer.add_tokens(["<answer>", "</answer>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """0.9 M parameters: large enough for two-digit sums, small enough for rounds of a tenth of a second."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, task: Task) -> tuple[list[int], list[int]]:
    """(prompt, completion) token ids of a task with its right answer."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": task.question}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    completion = tokenizer.encode(f"<answer>{task.answer}</answer>", add_special_tokens=False)
    return prompt, [*completion, tokenizer.eos_token_id]


def warm_up(
    model: Qwen3ForCausalLM,
    samples: list[tuple[list[int], list[int]]],
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    chooser: random.Random,
) -> None:
    """Next-token prediction on the completions, with AdamW.

    The rate falls to four tenths only, and it ends early: a model that is sure of its answers explores nothing.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    bar = tqdm(range(steps), desc="warm-up", disable=not sys.stderr.isatty())
    for step in bar:
        decay = 0.4 + 0.6 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 100) * decay
        batch = chooser.sample(samples, BATCH)
        width = max(len(prompt) + len(completion) for prompt, completion in batch)
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)  # (B, T)
        labels = torch.full((BATCH, width), -100)  # (B, T), -100: not predicted
        for row, (prompt, completion) in enumerate(batch):
            end = len(prompt) + len(completion)
            ids[row, :end] = torch.tensor(prompt + completion)
            labels[row, len(prompt) : end] = torch.tensor(completion)
        loss = model(input_ids=ids, labels=labels).loss  # padding stands right: causality masks it
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if not sys.stderr.isatty() and step % 200 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", file=sys.stderr, flush=True)


def write(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Replaces the model files in `out`, and nothing else there."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        out.mkdir(parents=True, exist_ok=True)
        for file in Path(folder).iterdir():
            shutil.copy(file, out / file.name)
            (out / file.name).chmod(0o644)
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {parameters:,} parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
