"""The commands about swarm and identity as people and scripts call them: output, exit codes, files."""

import json
import os
import pwd
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
    assert str(one.drop_in) in one.call("found", "another", code=78).stderr
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


def test_wrong_usage_is_told_apart(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one")
    one.call("found", code=2)
    one.call("found", "x", "--round-seconds", "0", code=2)
    one.call("identity", code=2)
    assert not one.state.exists() and not one.drop_in.exists()


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
