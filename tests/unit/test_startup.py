"""What every process does first, in processes of their own: it changes the whole process."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    prelude = "from swarmd.system.startup import assert_recursion_limit, prepare_process\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


SHOW = "import json, os; prepare_process(); print(json.dumps(dict(os.environ)))"


def test_the_environment_is_set_whatever_the_shell_exported() -> None:
    seen = json.loads(run(SHOW, TOKENIZERS_PARALLELISM="true", HF_HUB_OFFLINE="0", LAMBDA="1").stdout)
    assert seen["TOKENIZERS_PARALLELISM"] == "false"
    assert seen["HF_HUB_OFFLINE"] == seen["TRANSFORMERS_OFFLINE"] == "1"
    assert seen["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert seen["WANDB_MODE"] == "disabled"
    assert "LAMBDA" not in seen


def test_only_a_process_that_pulls_may_ask_the_hub() -> None:
    code = "import os; prepare_process(pulling=True); print('HF_HUB_OFFLINE' in os.environ)"
    assert run(code, HF_HUB_OFFLINE="1").stdout == "False\n"


def test_files_are_made_for_their_owner_only(tmp_path: Path) -> None:
    run(f"prepare_process(); open({str(tmp_path / 'f')!r}, 'w').close()")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_deadly_signal_leaves_the_stacks() -> None:
    outcome = run("import os\nprepare_process()\ndef in_the_round(): os.abort()\nin_the_round()")
    assert outcome.returncode == -6
    assert "in_the_round" in outcome.stderr


def test_a_raised_recursion_limit_is_noticed() -> None:
    assert run("prepare_process(); assert_recursion_limit()").returncode == 0
    outcome = run("import sys; prepare_process(); sys.setrecursionlimit(100_000); assert_recursion_limit()")
    assert "RuntimeError: an imported library set the recursion limit to 100000 (not 1000)" in outcome.stderr


def test_it_loads_no_heavy_library_itself() -> None:
    heavy = ("torch", "transformers", "tokenizers", "genrl", "hivemind", "huggingface_hub", "numpy")
    code = f"import sys; prepare_process(); print([name for name in {heavy} if name in sys.modules])"
    assert run(code).stdout == "[]\n"


def test_what_a_node_does_before_it_waits_loads_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "tokenizers", "genrl", "hivemind", "huggingface_hub", "numpy", "reasoning_gym")
    code = f"import sys; import swarmd.beginning; print([name for name in {heavy} if name in sys.modules])"
    assert run(code).stdout == "[]\n"
