"""Model folders that cannot be trained, each with the message that says why."""

import json
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from safetensors.torch import load_file, save_file

from swarmd.system.exits import ConfigurationError
from swarmd.training.catalog import AUTO, choose
from swarmd.training.hub import cached_folder, downloaded
from swarmd.training.models import ModelError, embedded_folder, is_hub_name, load_model, read_config
from tests.models import save_small_model, small_model

CPU = torch.device("cpu")


def edit(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


class Marker:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def garbled_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe{")


def config_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def no_model_type(folder: Path) -> None:
    edit(folder / "config.json", model_type=None)


def custom_code(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.EvilModel"})
    (folder / "evil.py").write_text(f"open({str(folder / 'marker')!r}, 'w')\nclass EvilModel: pass\n")


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(folder / "marker")))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def garbage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"garbage!" * 100)


def weights_of_another_size(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: w[:1].clone() for name, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def a_weight_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_sizes_in_config(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=64)


def weights_of_fewer_layers(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3)


def no_number(folder: Path) -> None:
    edit(folder / "config.json", hidden_size="many")


def no_heads(folder: Path) -> None:
    edit(folder / "config.json", num_attention_heads=0, num_key_value_heads=0)


def unknown_kind(folder: Path) -> None:
    edit(folder / "config.json", model_type="evil")


def no_decoder(folder: Path) -> None:
    edit(folder / "config.json", model_type="t5")


def quantized(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 7}')


def no_end_token(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token=None)


def no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder / "tokenizer_config.json", chat_template=None)


def template_text(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


def endless_template(folder: Path) -> None:
    template_text(folder, "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")


def failing_template(folder: Path) -> None:
    template_text(folder, "{{ raise_exception('no such role') }}")


def broken_template(folder: Path) -> None:
    template_text(folder, "{% for %}")


def dividing_template(folder: Path) -> None:
    template_text(folder, "{{ 1 / 0 }}")


def escaping_template(folder: Path) -> None:
    template_text(folder, "{{ ''.__class__.__mro__[1].__subclasses__() }}")


def huge_template(folder: Path) -> None:
    template_text(folder, "{{ 'a' * 10000000 }}")


def tokenizer_of_another_model(folder: Path) -> None:
    small_model(vocabulary=20).save_pretrained(folder)


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (empty, r"model m: FOLDER has no config.json, so it is no model folder"),
    (no_config, r"model m: FOLDER has no config.json, so it is no model folder"),
    (garbled_config, r"model m: FOLDER/config.json cannot be read \(.*\); fetch the model again"),
    (deep_config, r"model m: FOLDER/config.json cannot be read \(.*\); fetch the model again"),
    (config_is_a_list, r"model m: FOLDER/config.json names no model_type, so it is no model of transformers"),
    (no_model_type, r"model m: FOLDER/config.json names no model_type, so it is no model of transformers"),
    (custom_code, r"model m: it needs code of its own \(auto_map in FOLDER/config.json\), which is never run here; "
                  r"choose a model that transformers knows, such as Qwen/Qwen2.5-0.5B-Instruct"),
    (only_a_pickle, r"model m: FOLDER has only pytorch_model.bin, a pickle, which can run code when it is read; "
                    r"it needs \*.safetensors files"),
    (no_weights, r"model m: FOLDER has no weights; it needs \*.safetensors files"),
    (cut_weights, r"model m: the weights in FOLDER are damaged \(.*\); fetch them again"),
    (garbage_weights, r"model m: the weights in FOLDER are damaged \(.*\); fetch them again"),
    (weights_of_another_size, r"model m: the weights in FOLDER do not belong to its config.json: .* has the shape "
                              r"\(1.*\) and not \(.*\); fetch the model again"),
    (a_weight_missing, r"model m: model.norm.weight cannot be found in FOLDER; fetch the model again"),
    (other_sizes_in_config, r"model m: the weights in FOLDER do not belong to its config.json: "
                            r"model.layers.0.mlp.down_proj.weight has the shape \(32, 128\) and not \(32, 64\); "
                            r"fetch the model again"),
    (weights_of_fewer_layers, r"model m: model.layers.2.input_layernorm.weight and \d+ other weights cannot be found "
                              r"in FOLDER; fetch the model again"),
    (no_number, r"model m: its config.json contradicts itself: .*'hidden_size'.* expected int, got str .*"),
    (no_heads, r"model m: .*(config.json contradicts itself|transformers cannot load FOLDER): .*"),
    (unknown_kind, r"model m: transformers has no model of type 'evil'"),
    (no_decoder, r"model m: .*T5Config.*"),
    (quantized, r"model m: its weights are quantized \(quantization_config in FOLDER/config.json\), and such weights "
                r"cannot be trained; choose the model that it was made from"),
    (no_tokenizer, r"model m: FOLDER has no tokenizer; it needs tokenizer.json or tokenizer.model or vocab.json"),
    (damaged_tokenizer, r"model m: (FOLDER/tokenizer.json is damaged|its tokenizer cannot be loaded from FOLDER): .*"),
    (no_end_token, r"model m: its tokenizer has no end token, so completions could never end; add eos_token to "
                   r"FOLDER/tokenizer_config.json"),
    (no_chat_template, r"model m: its tokenizer has no chat template \(a base model\?\); choose an instruct model or "
                       r"add chat_template to FOLDER/tokenizer_config.json"),
    (endless_template, r"model m: its chat template runs for more than 5 s on one question; it is broken or hostile"),
    (failing_template, r"model m: its chat template fails on a plain question: no such role"),
    (broken_template, r"model m: its chat template fails on a plain question: .*"),
    (dividing_template, r"model m: its chat template fails on a plain question: division by zero"),
    (escaping_template, r"model m: its chat template fails on a plain question: access to attribute '__class__' .*"),
    (huge_template, r"model m: its chat template makes 10000000 characters of one short question; it is broken or "
                    r"hostile"),
    (tokenizer_of_another_model, r"model m: the tokenizer has 100 tokens and the model's embedding only 20; they do "
                                 r"not belong together"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize(("breaks", "message"), BROKEN, ids=[breaks.__name__ for breaks, _ in BROKEN])
def test_a_broken_model_folder_is_refused_with_the_reason(
    good: Path, tmp_path: Path, breaks: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(good, folder)
    breaks(folder)
    with pytest.raises(ModelError) as caught:
        load_model("m", folder, torch.float32, CPU)
    assert re.fullmatch(message.replace("FOLDER", re.escape(str(folder))), str(caught.value)), str(caught.value)
    assert isinstance(caught.value, ConfigurationError)
    assert not (folder / "marker").exists(), "code that came with the model has run"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder; set model.name to a folder with config.json"):
        read_config(tmp_path / "nowhere", "m")


@pytest.mark.parametrize("wanted", ["flash_attention_2", "someone/kernel"])
def test_how_attention_is_computed_is_not_for_the_model_to_say(good: Path, tmp_path: Path, wanted: str) -> None:
    folder = shutil.copytree(good, tmp_path / "m")
    edit(folder / "config.json", attn_implementation=wanted)
    assert load_model("m", folder, torch.float32, CPU).model.config._attn_implementation == "sdpa"
    edit(folder / "config.json", text_config={"attn_implementation": wanted, "hidden_size": 32})
    assert read_config(folder, "m")["text_config"] == {"hidden_size": 32}


def test_a_timer_that_was_running_goes_on_after_a_model_was_loaded(good: Path) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 3600.0)
    try:
        load_model("m", good, torch.float32, CPU)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_a_folder_loads_as_any_model(good: Path) -> None:
    loaded = load_model("m", good, torch.float32, CPU)
    assert loaded.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert loaded.tokenizer.pad_token_id is not None
    assert not loaded.model.training


def test_the_embedded_model_loads_the_same_way_and_is_small() -> None:
    folder = embedded_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    loaded = load_model("embedded", folder, torch.float32, CPU)
    assert loaded.model.config.model_type.startswith("qwen")
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "State the final answer to the following arithmetic problem: 12 + 7 ="}],
        add_generation_prompt=True, tokenize=True, return_dict=False,
    )  # fmt: skip
    assert len(ids) < 16, "the phrases of its questions are whole tokens, digits single ones"


@pytest.mark.parametrize(
    ("name", "hub"),
    [("embedded", False), ("auto", False), ("/m", False), ("./m", False), ("Qwen/Qwen3-0.6B", True), ("a/b/c", False)],
)
def test_what_is_a_hub_name(name: str, hub: bool) -> None:
    assert is_hub_name(name) is hub


def test_auto_takes_the_first_that_fits_and_always_the_same() -> None:
    by_hidden = {name: config["hidden_size"] for name, config in AUTO.items()}
    for widest, expected in ((4096, "dnotitia/Smoothie-Qwen3-1.7B"), (1536, "Gensyn/Qwen2.5-1.5B-Instruct"),
                             (1024, "Qwen/Qwen3-0.6B"), (896, "Gensyn/Qwen2.5-0.5B-Instruct")):  # fmt: skip
        for _ in range(2):
            assert choose(lambda config, widest=widest: config["hidden_size"] <= widest, "1 GiB") == expected
    assert min(by_hidden.values()) == 896
    with pytest.raises(ModelError, match="none of .* can be trained in 1.0 GiB .RAM.; use model.name: embedded"):
        choose(lambda config: False, "1.0 GiB (RAM)")


def test_an_empty_cache_holds_no_model(tmp_path: Path) -> None:
    assert cached_folder("Qwen/Qwen3-0.6B", None, tmp_path) is None
    assert downloaded(tmp_path / "nothing") == []


def test_a_fetched_model_is_found_though_only_some_of_its_files_were_wanted(good: Path, tmp_path: Path) -> None:
    """As the hub's client lays it down: it keeps the whole list of files, of which the readme was not fetched."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    shutil.copytree(good, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    present = {path.name: path.stat().st_size for path in good.iterdir()}
    write_tree_cache(
        str(repository),
        commit,
        {name: TreeCacheEntry(size, "0" * 40) for name, size in {**present, "README.md": 10}.items()},
    )
    found = cached_folder("owner/name", None, tmp_path)
    assert found is not None
    assert load_model("owner/name", found, torch.float32, CPU).parameters > 0
