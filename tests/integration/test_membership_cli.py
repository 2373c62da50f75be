"""The commands about swarm and identity as people and scripts call them: output, exit codes, files."""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPEN = "network: {listen: [/ip4/0.0.0.0/tcp/38751]}\n"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


class Machine:
    """A folder with a configuration and a state, and the program called on it."""

    def __init__(self, folder: Path, text: str = OPEN) -> None:
        folder.mkdir()
        self.config = folder / "config.yaml"
        self.config.write_text(text)
        self.state = folder / "state"
        self.drop_in = folder / "config.d" / "50-swarm.yaml"

    def call(self, *arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
        done = subprocess.run(
            [sys.executable, "-m", "swarmd", *arguments, "--config", str(self.config), "--state", str(self.state)],
            cwd=ROOT, env=environ, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, stdin: str = "") -> Any:
        return json.loads(self.call(*arguments, "--json", stdin=stdin).stdout)


def test_found_invite_join_leave(tmp_path: Path) -> None:
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    told = one.call("found", "our-swarm", "--private").stdout.splitlines()
    assert told[0].startswith("founded the swarm our-swarm (") and "private" in told[0]
    assert told[-1].startswith("swarmd join swarmd:")
    word = told[-1].removeprefix("swarmd join ")
    assert f"swarmd run --config {one.config} --state {one.state}" in told[-3]

    invited = one.call("invite")
    assert invited.stdout.strip() == word and "as you would a password" in invited.stderr
    joined = two.json("join", "-", stdin=f"\n{word[:60]}\n{word[60:]}\n")
    assert joined["swarm"]["id"] == one.json("invite")["swarm"]["id"]
    assert joined["file"] == str(two.drop_in) and joined["swarm"]["private"] is True
    assert two.call("check", "--no-plan").stdout == "the configuration is good\n"
    assert two.drop_in.stat().st_mode & 0o7777 == 0o640

    assert two.call("join", word[:-9] + "x", code=78).stderr.startswith("swarmd: the invite is damaged")
    refused = one.call("found", "another", code=78).stderr
    assert str(one.drop_in) in refused and f"`swarmd leave --config {one.config} --state {one.state}` first" in refused
    assert two.json("leave")["file"] == str(two.drop_in)
    assert not two.drop_in.exists() and sorted(os.listdir(two.state)) == ["identity.key"]
    assert two.call("leave", code=78).stderr.startswith("swarmd: this node is in no swarm")


def test_private_addresses_alone_are_pointed_out_with_the_fix(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", "network: {listen: [/ip4/192.168.7.7/tcp/38751]}\n")
    told = one.json("found", "our-swarm")
    assert told["reach"] == "private" and "set network.announce:" in told["notes"][0]
    assert told["swarm"]["peers"] == [f"/ip4/192.168.7.7/tcp/38751/p2p/{told['peer_id']}"]
    other = Machine(tmp_path / "other", "network: {listen: [/ip4/127.0.0.1/tcp/38751]}\n")
    assert other.json("found", "our-swarm")["reach"] == "machine"
    public = Machine(tmp_path / "public")
    told = public.json("found", "our-swarm", "--announce", "/dns4/node.example.org/tcp/4000")
    assert told["reach"] == "public" and told["notes"] == []
    assert told["swarm"]["shards"] == 32
    nowhere = Machine(tmp_path / "nowhere", "network: {listen: [/ip4/127.0.0.1/tcp/0]}\n")
    told = nowhere.json("found", "our-swarm")
    assert told["reach"] == "nowhere" and told["swarm"]["peers"] == []
    assert "nobody can join with it" in told["notes"][1] and "set network.announce:" in told["notes"][0]
    assert "names no node" in Machine(tmp_path / "late").call("join", told["invite"], code=78).stderr
    large = Machine(tmp_path / "large").json("found", "our-swarm", "--nodes", "10000")
    assert large["swarm"]["shards"] == 625
    told = Machine(tmp_path / "odd").call("found", "our-swarm", "--nodes", "5000").stdout
    assert "\nshards 313, for up to 5008 nodes\n" in told


def test_identity_show_new_backup_restore(tmp_path: Path) -> None:
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    assert "`swarmd identity new` makes one" in one.call("identity", "show", code=1).stderr
    made = one.json("identity", "new")
    assert made == one.json("identity", "show")
    assert one.call("identity", "show").stdout == f"{made['peer_id']}\n{made['name']}\n{made['file']}\n"
    assert len(made["name"].split()) == 3
    refusal = one.call("identity", "new", code=78).stderr
    assert f"mv {made['file']} {made['file']}.old" in refusal

    backup = tmp_path / "backup.key"
    one.call("identity", "backup", str(backup))
    assert backup.stat().st_mode & 0o7777 == 0o600 and backup.read_bytes() == Path(made["file"]).read_bytes()
    assert "exists already" in one.call("identity", "backup", str(backup), code=78).stderr
    assert two.json("identity", "restore", str(backup))["peer_id"] == made["peer_id"]
    two.call("identity", "restore", str(backup))  # the same key again is no mistake
    other = tmp_path / "other.key"
    other.write_bytes(b"\x08\x01\x12\x00")
    assert "Ed25519" in two.call("identity", "restore", str(other), code=78).stderr


def test_restoring_what_is_no_key_or_another_nodes_says_so_and_changes_nothing(tmp_path: Path) -> None:
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear node,\n")
    for node in (one, two):
        told = node.call("identity", "restore", str(letter), code=78).stderr
        assert told.startswith(f"swarmd: {letter}: the file holds no RSA key in libp2p's form, or a damaged one; ")
        assert "nothing has changed" in told
        assert "name a file that `swarmd identity backup FILE` made" in told and "moving it away" not in told
        assert not (node.state / "identity.key").exists()
        node.call("identity", "new")
    mine, others = one.json("identity", "show"), two.json("identity", "show")
    told = one.call("identity", "restore", others["file"], code=78).stderr
    assert f"{others['file']} is the key of another node, {others['name']} ({others['peer_id']})" in told
    assert f"this one is {mine['name']} ({mine['peer_id']}) by {mine['file']}" in told
    assert f"mv {mine['file']} {mine['file']}.old" in told and one.json("identity", "show") == mine
    one.state.joinpath("identity.key").rename(one.state / "identity.key.old")
    assert one.json("identity", "restore", others["file"])["peer_id"] == others["peer_id"]


def test_two_nodes_of_one_machine_on_one_port_are_pointed_out_with_the_fix(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one")
    one.call("found", "our-swarm")
    word = Machine(tmp_path / "two").json("found", "another")["invite"]
    second = tmp_path / "one" / "second.yaml"
    second.write_text(OPEN)
    one.config = second
    told = one.call("join", word).stdout
    assert f"note: {tmp_path}/one/config.yaml says to listen on port 38751 too" in told
    assert "/tcp/38752]}` into " in told
    (note,) = one.json("join", word)["notes"]
    assert f"note: {note}\n" in told
    own = tmp_path / "one" / "second.d" / "60-port.yaml"
    own.write_text(note.split("`")[1])
    assert one.json("join", word)["notes"] == []
    one.call("leave")
    own.unlink()
    one.config = tmp_path / "one" / "config.yaml"
    one.call("leave")
    assert any("listen on port 38751 too" in note for note in one.json("found", "for-all")["notes"])


def test_an_option_before_the_command_names_the_node_as_well(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one")
    made = one.json("identity", "new")
    done = subprocess.run(
        [sys.executable, "-m", "swarmd", "--state", str(one.state), "--config", str(one.config), "identity", "show"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(made["peer_id"])


def test_wrong_usage_is_told_apart(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one")
    one.call("found", code=2)
    one.call("found", "x", "--round-seconds", "0", code=2)
    for nodes in ("0", "16385", "many"):
        assert "--nodes" in one.call("found", "x", "--nodes", nodes, code=2).stderr
    one.call("identity", code=2)
    assert not one.state.exists() and not one.drop_in.exists()


def test_a_node_warns_at_its_start_of_what_its_swarm_did_not_agree_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quick = "training: {tasks_per_round: 2, group_size: 2, evaluate_samples: 4}\n"
    one = Machine(tmp_path / "one", f"network: {{listen: [/ip4/127.0.0.1/tcp/{port}]}}\n{quick}")
    one.call("found", "our-swarm", "--round-seconds", "1")
    assert "its swarm" not in one.call("run", "--rounds", "1").stderr
    later = one.drop_in.with_name("60-mine.yaml")
    later.write_text("swarm:\n  shards: 7\n")
    lines = [line for line in one.call("run", "--rounds", "1").stderr.splitlines() if "its swarm" in line]
    assert len(lines) == 1 and lines[0].startswith("swarmd: warning: this node would make other tasks or rounds")
    assert f"swarm.shards in {later}:2." in lines[0] and "take it out there" in lines[0]
    told = one.json("status")["network"]
    assert told["disagreement"] == lines[0].removeprefix("swarmd: warning: ")
    assert f"agreement   none: {told['disagreement']}" in one.call("status").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
def test_root_leaves_nothing_that_the_services_user_cannot_read(public: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    one = Machine(public / "one")
    one.config.parent.chmod(0o755)
    one.state.mkdir()
    one.state.chmod(0o750)
    os.chown(one.state, nobody.pw_uid, nobody.pw_gid)
    one.call("found", "our-swarm", "--private")
    for name in ("identity.key", "swarm.secret"):
        made = (one.state / name).stat()
        assert (made.st_uid, made.st_mode & 0o7777) == (nobody.pw_uid, 0o600), name
    assert one.drop_in.stat().st_uid == 0
    backup = public / "backup.key"
    one.call("identity", "backup", str(backup))
    assert backup.stat().st_uid == 0
    one.call("leave")
    assert os.listdir(one.state) == ["identity.key"]
