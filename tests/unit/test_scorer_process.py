"""The life of the scorer process: its start, its surroundings, its death and its replacement."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from swarmd.system.child import ChildKeeper
from swarmd.system.link import LinkClosed
from swarmd.tasks.scorer import Score, Scorer, ScoreRequest
from swarmd.tasks.verdicts import ScoreLimits

ROOT = Path(__file__).parent.parent.parent
HONEST = ScoreRequest("chain_sum", "<answer>5</answer>", "5", {})
SCORED = Score(1.0, "")
# Hangs until its CPU time is up.
SLOW = ScoreRequest("coin_flip", "<answer>1e99999999</answer>", "1/2", {})


def run_python(program: str, *prefix: str, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=120, env=environment, **options,
    )  # fmt: skip


def later(seconds: float, pid: int, number: int) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (pid, number))
    timer.start()
    return timer


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_child_killed_in_the_middle_of_a_batch_is_replaced_and_the_batch_completed(caplog):
    with Scorer(ScoreLimits(cpu_s=1.0)) as scorer, caplog.at_level(logging.INFO, logger="swarmd"):
        first = scorer.pid
        timer = later(0.3, first, signal.SIGKILL)
        scores = scorer.score([HONEST, SLOW, HONEST])
        timer.join()
        assert scores == [SCORED, Score(0.0, "timeout"), SCORED]
        assert scorer.restarts == 1 and scorer.pid != first and gone(first)
    [record] = [r for r in caplog.records if getattr(r, "event_kind", "") == "child_replaced"]
    assert record.event_fields["child"] == "scorer" and record.levelno == logging.WARNING


def test_a_child_killed_between_two_batches_is_replaced():
    with Scorer() as scorer:
        os.kill(scorer.pid, signal.SIGKILL)
        assert scorer.score([HONEST] * 3) == [SCORED] * 3
        assert scorer.restarts == 1


def test_a_child_that_stops_is_noticed_by_its_silence_and_replaced():
    with Scorer(ScoreLimits(silence_s=1.5)) as scorer:
        stopped = scorer.pid
        os.kill(stopped, signal.SIGSTOP)
        assert scorer.score([HONEST] * 3) == [SCORED] * 3
        assert scorer.restarts == 1 and gone(stopped)


def test_a_worker_killed_from_outside_costs_the_answer_in_work_alone():
    with Scorer() as scorer:

        def kill_the_worker() -> None:
            children = Path(f"/proc/{scorer.pid}/task/{scorer.pid}/children")
            while not (text := children.read_text()):
                time.sleep(0.005)
            time.sleep(0.2)  # the first answer is done, the second takes its time
            os.kill(int(text), signal.SIGKILL)

        killer = threading.Thread(target=kill_the_worker)
        killer.start()
        scores = scorer.score([HONEST, SLOW, HONEST])
        killer.join()
        assert scores == [SCORED, Score(0.0, "crash"), SCORED]
        assert scorer.restarts == 0


def test_what_a_child_that_dies_twice_has_not_scored_is_marked():
    with Scorer(ScoreLimits(cpu_s=1.0)) as scorer:
        stop = threading.Event()

        def kill_each() -> None:
            while not stop.wait(0.3):
                if scorer.pid:
                    try:
                        os.kill(scorer.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        killer = threading.Thread(target=kill_each)
        killer.start()
        scores = scorer.score([SLOW, SLOW, SLOW])
        stop.set()
        killer.join()
        assert {score.reason for score in scores} <= {"timeout", "crash"} and scores[2].reason == "crash"
        assert scorer.score([HONEST]) == [SCORED]


def test_a_call_that_was_interrupted_does_not_disturb_the_next_one():
    class Interrupted(Exception):
        pass

    def interrupt(number, frame) -> None:
        raise Interrupted

    with Scorer(ScoreLimits(cpu_s=1.0)) as scorer:
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(Interrupted):
                scorer.score([SLOW, SLOW])
        finally:
            signal.signal(signal.SIGALRM, before)
        assert scorer.score([HONEST, HONEST]) == [SCORED, SCORED]


def test_the_child_dies_with_its_parent_however_that_ends():
    program = """
        import os, signal
        from swarmd.tasks.scorer import Scorer
        scorer = Scorer().__enter__()
        print(scorer.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = run_python(program)
    assert result.returncode == -signal.SIGKILL
    assert gone(int(result.stdout))


def test_the_child_sees_nothing_of_its_parent_s_environment_files_and_terminal(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(secret, True)
    with Scorer() as scorer:
        process = Path(f"/proc/{scorer.pid}")
        environment = (process / "environ").read_bytes()
        descriptors = {entry.name: os.readlink(entry) for entry in (process / "fd").iterdir()}
        status = (process / "status").read_text()
        assert os.getsid(scorer.pid) == scorer.pid
    os.close(secret)
    assert b"hf_secret" not in environment and b"HF_TOKEN" not in environment
    names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    assert names <= {
        "PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "MPLCONFIGDIR", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    }  # fmt: skip
    assert descriptors["0"] == "/dev/null"
    assert not any("secret" in target for target in descriptors.values())
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "Threads:\t1" in status


def test_the_scorer_is_what_the_kernel_ends_first_when_memory_runs_out():
    with Scorer() as scorer:
        assert Path(f"/proc/{scorer.pid}/oom_score_adj").read_text() == "1000\n"


def test_modules_in_the_directory_where_swarmd_was_started_are_not_imported(tmp_path):
    for name in ("reasoning_gym", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current directory')")
    program = f"""
        import os
        from swarmd.tasks.scorer import Scorer, ScoreRequest
        os.chdir({str(tmp_path)!r})
        with Scorer() as scorer:
            print(scorer.score([ScoreRequest("chain_sum", "<answer>5</answer>", "5", {{}})]))
    """
    result = run_python(program, cwd=ROOT)
    assert "Score(value=1.0" in result.stdout, result.stderr


def test_without_any_capability_the_scorer_works():
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (package util-linux)")
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    program = """
        from pathlib import Path
        from swarmd.tasks.scorer import Scorer, ScoreRequest
        print([l for l in Path("/proc/self/status").read_text().splitlines() if "CapEff" in l])
        with Scorer() as scorer:
            print(scorer.score([ScoreRequest("chain_sum", "<answer>5</answer>", "5", {})]))
    """
    result = run_python(program, *drop)
    assert "CapEff:\\t0000000000000000" in result.stdout and "Score(value=1.0" in result.stdout, result.stderr


def test_where_the_kernel_refuses_the_sandbox_the_start_fails_with_a_configuration_error():
    program = """
        import pyseccomp
        from swarmd.system.exits import ConfigurationError
        from swarmd.tasks.scorer import Scorer
        cage = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        cage.add_rule(pyseccomp.ERRNO(22), "seccomp")
        cage.add_rule(pyseccomp.ERRNO(22), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, 22))
        cage.load()
        try:
            Scorer().__enter__()
        except ConfigurationError as error:
            print("refused:", error)
    """
    result = run_python(program)
    assert "refused: the kernel refuses a seccomp filter" in result.stdout, result.stderr
    assert "allow prctl() and seccomp() in the container's profile" in result.stdout


def test_replacements_that_follow_each_other_wait_longer_and_longer():
    starts: list[float] = []

    def start():
        starts.append(time.monotonic())
        raise LinkClosed("it died")

    keeper = ChildKeeper("test", start)
    for _ in range(4):
        with pytest.raises(LinkClosed):
            keeper.get()
    gaps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    # 0.25, 0.5 and 1 s, each times 0.5 to 1.5.
    assert all(gap >= least for gap, least in zip(gaps, (0.12, 0.25, 0.5), strict=True))
    assert keeper.restarts == 0 and keeper.pid is None
