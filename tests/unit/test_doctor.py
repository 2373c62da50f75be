"""`swarmd doctor`: each thing that can be wrong is found, and the fix named."""

from __future__ import annotations

import errno
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.config import load_config
from swarmd.doctor import machine as doctor_machine
from swarmd.doctor import network as doctor_network
from swarmd.doctor import swarm as doctor_swarm
from swarmd.doctor.examination import examine, finding_lines
from swarmd.doctor.look import Finding, Look
from swarmd.membership import change
from swarmd.membership.place import Place
from swarmd.monitor.status import ChildStatus, MemoryStatus, NetworkStatus, Status, StatusFile
from swarmd.system.installation import installation

SERVICE = installation(None)
BOOTNODE = "swarm: {role: bootnode}\n"


def look(folder: Path, text: str = "", status: Status | None = None) -> Look:
    """At a node with this configuration. status: what it says of itself while it runs, None for one that does not."""
    config = folder / "config.yaml"
    if text or not config.exists():
        config.write_text(text)
    told = {} if status is None else asdict(status)
    return Look(load_config(config, {}), config, folder / "state", told, status is not None, SERVICE, {})


def in_swarm(folder: Path, *, private: bool = False, port: int = 0) -> Look:
    """At a node that has founded a swarm."""
    config = folder / "config.yaml"
    config.write_text(f"network: {{listen: [/ip4/127.0.0.1/tcp/{port or 38751}]}}\n")
    (folder / "state").mkdir()
    place = Place(config, config, folder / "state", {})
    change.found(
        place, "trial", round_seconds=10.0, datasets=None, private=private, announce=(), bootnode=False, nodes=None
    )  # fmt: skip
    return look(folder)


def running(found: Look, **network: Any) -> Look:
    status = Status(
        "training",
        network=replace(NetworkStatus("trial", found.config.swarm.id or ""), **network),
        children={"p2pd": ChildStatus(7, 0)},
    )
    return replace(found, status=asdict(status), running=True)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_node_of_its_own_is_well_and_is_told_how_to_join_others(tmp_path: Path) -> None:
    found = look(tmp_path)
    findings = examine(found.config_path, found.state, found.state, SERVICE)
    assert {finding.check: finding.result for finding in findings} == dict.fromkeys(
        ("config", "state", "disk", "memory", "torch", "swarm"), "ok"
    )
    assert "swarmd found NAME" in by_check(findings)["swarm"].message
    assert not found.state.exists(), "it only looks"
    assert list(finding_lines(findings))[-1] == "nothing to mend"


def test_a_configuration_with_mistakes_is_all_that_is_told_of(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("swarm: {rolle: node}\n")
    first, *_, last = examine(config, tmp_path, tmp_path, SERVICE)
    assert (first.check, first.result) == ("config", "failed")
    assert "swarm.rolle" in first.message and first.fix == f"swarmd check --no-plan --config {config}"
    assert last.result == "skipped"


def test_a_check_that_fails_itself_keeps_no_other_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: 1 / 0)
    (tmp_path / "config.yaml").write_text("")
    service = replace(SERVICE, config=tmp_path / "config.yaml", state=tmp_path / "state")
    found = by_check(examine(tmp_path / "config.yaml", tmp_path / "state", tmp_path, service))
    assert found["memory"].result == "failed" and "ZeroDivisionError" in found["memory"].message
    assert found["torch"].result == "ok"


def test_a_model_that_does_not_fit_is_found(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("memory: {limit: 256MiB}\n")
    found = by_check(examine(config, tmp_path / "state", tmp_path, SERVICE))["memory"]
    assert found.result == "failed" and "set memory.limit higher" in found.message


def test_a_running_node_near_its_limit_is_warned_of(tmp_path: Path) -> None:
    for peak, result in ((990, "warning"), (500, "ok")):
        status = Status("training", memory=MemoryStatus(400 << 20, 1000 << 20, peak << 20, 800 << 20))
        (found,) = doctor_machine.memory(look(tmp_path, status=status))
        assert found.result == result and (found.fix is None) == (result == "ok")


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    for mib, result in ((10, "failed"), (500, "warning"), (5000, "ok")):
        fields = list(real)
        fields[4] = mib * 2**20 // real.f_frsize
        monkeypatch.setattr(os, "statvfs", lambda path, fields=fields: os.statvfs_result((*fields, 0)))
        (found,) = doctor_machine.disk(look(tmp_path))
        assert found.result == result, found


def test_a_gpu_that_is_wanted_and_not_there_is_found(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    (found,) = doctor_machine.torch(look(tmp_path, "model: {device: cuda}\n"))
    assert found.result == "failed" and found.fix


def test_a_node_in_a_swarm_that_does_not_run_is_well_and_says_what_needs_it_to_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = in_swarm(tmp_path, private=True, port=port)
    findings = by_check(examine(found.config_path, found.state, found.state, SERVICE))
    ok = ("config", "state", "swarm", "identity", "secret", "agreement", "reasoning-gym", "ports", "p2pd")
    assert {check: findings[check].result for check in ok} == dict.fromkeys(ok, "ok"), findings
    for check in ("peers", "reachable", "clock-skew"):
        assert findings[check].result == "skipped" and "swarmd run" in (findings[check].fix or "")
    assert findings["addresses"].result == "warning"


def test_of_a_node_that_does_not_run_nobody_says_that_it_trains(tmp_path: Path) -> None:
    alive = running(in_swarm(tmp_path))
    for state, told in (("stopped", "does not run now"), ("failed", "its last run has failed")):
        dead = replace(alive, running=False, status={**alive.status, "state": state})
        (found,) = doctor_swarm.membership(dead)
        assert told in found.message and "trains" not in found.message
        assert found.result == ("warning" if state == "failed" else "ok")
    (found,) = doctor_swarm.membership(alive)
    assert found.message.startswith("the node trains in the swarm ")


def test_a_key_that_others_can_read_is_found_with_its_fix(tmp_path: Path) -> None:
    found = in_swarm(tmp_path)
    key = found.state / "identity.key"
    key.chmod(0o644)
    told = by_check(examine(found.config_path, found.state, found.state, SERVICE))["identity"]
    assert (told.result, told.fix) == ("failed", f"chmod 0600 {key}")


def test_a_secret_that_is_gone_is_found(tmp_path: Path) -> None:
    found = in_swarm(tmp_path, private=True)
    (found.state / "swarm.secret").unlink()
    told = by_check(examine(found.config_path, found.state, found.state, SERVICE))["secret"]
    assert told.result == "failed" and "swarmd join" in (told.fix or "")


def test_what_only_the_service_can_read_is_passed_over(tmp_path: Path) -> None:
    found = look(tmp_path, "network: {identity_file: 'credential:swarmd_key'}\n")
    (told,) = doctor_swarm.identity(found)
    assert told.result == "skipped"


def test_a_file_that_overrules_the_swarm_is_named(tmp_path: Path) -> None:
    in_swarm(tmp_path)
    later = tmp_path / "config.d" / "60-mine.yaml"
    later.write_text("tasks: {datasets: rl-swarm}\n")
    (told,) = doctor_swarm.agreement(look(tmp_path))
    assert told.result == "failed" and f"tasks.datasets in {later}:1" in told.message


def test_a_drop_in_that_does_not_say_what_was_agreed_on_is_no_fault(tmp_path: Path) -> None:
    in_swarm(tmp_path)
    drop_in = tmp_path / "config.d" / "50-swarm.yaml"
    lines = drop_in.read_text().splitlines(keepends=True)
    drop_in.write_text("".join(line for line in lines if not line.startswith("# agreement: ")))
    (told,) = doctor_swarm.agreement(look(tmp_path))
    assert told.result == "skipped"


def test_a_port_that_another_program_has_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (told,) = doctor_network.ports(look(tmp_path, f"network: {{listen: [/ip4/127.0.0.1/tcp/{port}]}}\n"))
    assert (told.result, told.fix) == ("failed", f"ss -ltnp 'sport = :{port}'")


def test_from_where_others_can_call_follows_from_the_addresses(tmp_path: Path) -> None:
    for address, result in (("203.0.114.7", "ok"), ("192.168.3.4", "warning"), ("127.0.0.1", "warning")):
        text = f"network: {{announce: [/ip4/{address}/tcp/38751]}}\n"
        (told,) = doctor_network.addresses(look(tmp_path, text))
        assert told.result == result and address in told.message
        assert result == "ok" or "network.announce" in (told.fix or "")


def test_a_running_node_tells_of_its_connections(tmp_path: Path) -> None:
    member = in_swarm(tmp_path)
    for network, wanted in (
        ({"connected": 3, "reachable": True, "clock_skew_s": 0.1}, ("ok", "ok", "ok")),
        ({"connected": 0, "reachable": None, "clock_skew_s": None}, ("warning", "skipped", "skipped")),
        ({"connected": 3, "reachable": False, "clock_skew_s": -2.5}, ("ok", "warning", "warning")),
        ({"connected": 3, "reachable": True, "clock_skew_s": 7.0}, ("ok", "ok", "failed")),  # of a round of 10
    ):
        told = list(doctor_network.connections(running(member, **network)))
        assert [finding.check for finding in told] == ["peers", "reachable", "clock-skew"]
        assert tuple(finding.result for finding in told) == wanted
        assert all(finding.fix for finding in told if finding.result in ("warning", "failed"))
    circuit = "/ip4/192.0.2.1/tcp/1/p2p/QmRelay/p2p-circuit/p2p/QmOwn"
    for addresses, wanted in (((), "keeps no records for others"), ((circuit,), "through a relay")):
        _, reached, _ = doctor_network.connections(running(member, connected=3, reachable=False, addresses=addresses))
        assert reached.result == "warning" and wanted in reached.message and "peers cannot open" in reached.message
    (one, *_) = doctor_network.connections(running(member, connected=1))
    assert one.message == "1 peer is connected"


def test_clocks_of_others_that_are_off_by_more_than_half_a_round_fail_with_which_way(tmp_path: Path) -> None:
    member = in_swarm(tmp_path)  # with rounds of 10 s
    for skew, wanted in ((30.0, "30.00 s ahead of this one"), (-30.0, "30.00 s behind this one")):
        *_, told = doctor_network.connections(running(member, connected=3, clock_skew_s=skew))
        assert (told.check, told.result, told.fix) == ("clock-skew", "failed", "sudo timedatectl set-ntp true")
        assert told.message == f"the peers' clocks are {wanted}, more than half a round of 10 s"


def test_a_change_of_swarm_that_waits_for_the_restart_is_a_warning_with_the_command(tmp_path: Path) -> None:
    member = in_swarm(tmp_path)
    restart = f"swarmd run --config {member.config_path} --state {member.state}"
    alone = replace(member, status=asdict(Status("training")), running=True)
    (told,) = doctor_swarm.membership(alone)
    assert (told.result, told.fix) == ("warning", restart) and "has joined the swarm trial" in told.message
    assert all("started anew" in told.message for told in doctor_network.connections(alone))
    starting = replace(alone, status=asdict(Status("starting")))
    (told,) = doctor_swarm.membership(starting)
    assert (told.result, told.fix) == ("ok", None) and "is starting in the swarm trial" in told.message
    assert all(told.fix is None and "is starting" in told.message for told in doctor_network.connections(starting))
    there = running(member, connected=1)
    (told,) = doctor_swarm.membership(there)
    assert told.result == "ok"
    (tmp_path / "config.d" / "50-swarm.yaml").unlink()
    (told,) = doctor_swarm.membership(replace(look(tmp_path), status=there.status, running=True))
    assert (told.result, told.fix) == ("warning", restart)
    assert "still in the swarm trial" in told.message and "is in no swarm" in told.message


def test_a_command_for_this_node_names_it(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.command("invite") == f"swarmd invite --config {found.config_path} --state {found.state}"
    for instance, wanted in ((None, "sudo swarmd invite"), ("second", "sudo swarmd invite --instance second")):
        named = installation(instance)
        assert replace(found, config_path=named.config, state=named.state, named=named).command("invite") == wanted


def test_a_running_node_without_p2pd_is_found(tmp_path: Path) -> None:
    member = in_swarm(tmp_path)
    (told,) = doctor_network.daemon(running(member, problem="network.listen: port 1 is in use"))
    assert told.result == "failed" and "port 1 is in use" in told.message
    (told,) = doctor_network.daemon(running(member))
    assert told.result == "ok" and "pid 7" in told.message


def test_a_p2pd_that_does_not_start_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swarmd.network import p2pd_arguments

    broken = tmp_path / "p2pd"
    broken.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(p2pd_arguments, "p2pd_path", lambda: broken)
    (told,) = doctor_network.daemon(look(tmp_path))
    assert told.result == "failed" and "no such luck" in told.message


def test_the_status_of_a_node_that_has_ended_is_not_taken_for_news(tmp_path: Path) -> None:
    member = in_swarm(tmp_path)
    StatusFile(member.state / "status.json").write(Status("stopped", network=NetworkStatus("trial", "0" * 32, 5)))
    told = by_check(examine(member.config_path, member.state, member.state, SERVICE))
    assert told["peers"].result == "skipped"


@contextmanager
def hub(code: int, body: bytes = b"{}") -> Iterator[tuple[str, list[str]]]:
    """A server on loopback that answers everything so; its address, and the tokens it was shown."""
    shown: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            self.send_response(code)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", shown
        server.shutdown()


@pytest.mark.parametrize(("code", "result"), [(200, "ok"), (401, "failed"), (302, "warning"), (503, "warning")])
def test_the_hub_is_asked_where_a_token_is_configured(tmp_path: Path, code: int, result: str) -> None:
    token = tmp_path / "token"
    token.write_text("not-a-real-one-1234\n")
    with hub(code) as (address, shown):
        found = look(tmp_path, f"hub: {{token_file: {token}}}\n")
        (told,) = doctor_machine.hub(replace(found, environ={"HF_ENDPOINT": address}))
    assert told.result == result and shown == ["Bearer not-a-real-one-1234"]


def test_no_hub_is_asked_where_none_is_configured(tmp_path: Path) -> None:
    with hub(200) as (address, shown):
        assert list(doctor_machine.hub(replace(look(tmp_path), environ={"HF_ENDPOINT": address}))) == []
    assert shown == []


def test_a_hub_that_is_away_is_a_warning(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("not-a-real-one-1234\n")
    found = look(tmp_path, f"hub: {{token_file: {token}}}\n")
    (told,) = doctor_machine.hub(replace(found, environ={"HF_ENDPOINT": "http://127.0.0.1:1"}))
    assert told.result == "warning"
    token.unlink()
    (told,) = doctor_machine.hub(found)
    assert told.result == "failed"


def test_the_clock_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_swarm, "_SYNCHRONIZED", tmp_path / "synchronized")
    for there, kernel, result in ((False, False, "warning"), (False, True, "ok"), (True, False, "ok")):
        if there:
            (tmp_path / "synchronized").touch()
        monkeypatch.setattr(doctor_swarm, "_disciplined", lambda kernel=kernel: kernel)
        (told,) = doctor_swarm.clock(look(tmp_path))
        assert told.result == result




def test_a_program_that_the_nodes_user_cannot_read_is_all_there_is_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(tmp_path)
    monkeypatch.setattr(os, "__file__", str(tmp_path / "not-to-be-read"))
    findings = examine(found.config_path, found.state, found.state, SERVICE)
    assert [(finding.check, finding.result) for finding in findings] == [("config", "ok"), ("program", "failed")]


def test_a_configuration_that_only_the_service_may_read_is_a_matter_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: Any, *flags: Any, **more: Any) -> int:
        if str(path).endswith("config.yaml"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *flags, **more)

    found = look(tmp_path)
    monkeypatch.setattr(os, "open", denied)
    first, *_ = examine(found.config_path, found.state, found.state, SERVICE)
    assert (first.result, first.fix) == ("failed", "sudo swarmd doctor")
