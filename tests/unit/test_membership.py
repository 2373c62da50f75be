"""Founding, inviting, joining, leaving: what is written, what is refused, and that a refusal changes nothing."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd import arguments, swarm_drop_in
from swarmd.config import Config
from swarmd.config.swarm import MOST_NODES
from swarmd.membership import change
from swarmd.membership.change import Member
from swarmd.membership.place import Place
from swarmd.network.agreement import agreement_of
from swarmd.network.identity import load
from swarmd.network.invite import decode, encode
from swarmd.network.swarm_secret import read_swarm_secret
from swarmd.system.exits import ConfigurationError

LISTEN = "network: {listen: [/ip4/203.0.113.7/tcp/38751]}\n"


def place(folder: Path, text: str = LISTEN, name: str = "config", **environ: str) -> Place:
    folder.mkdir(exist_ok=True)
    main = folder / f"{name}.yaml"
    main.write_text(text)
    state = folder / f"{name}-state"
    state.mkdir(exist_ok=True)
    return Place(main, main, state, environ)


def found(where: Place, name: str = "our-swarm", **given: Any) -> Member:
    usual: dict[str, Any] = {
        "round_seconds": 60.0, "datasets": None, "private": False, "announce": (), "bootnode": False, "nodes": None
    }  # fmt: skip
    return change.found(where, name, **{**usual, **given})


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(where: Place, word: str, message: str) -> None:
    before = tree(where.main.parent)
    with pytest.raises(ConfigurationError, match=message):
        change.join(where, word)
    assert tree(where.main.parent) == before


def test_a_founder_is_in_a_swarm_of_its_own(tmp_path: Path) -> None:
    where = place(tmp_path)
    before = time.time()
    made = found(where)
    config = where.load()
    assert (config.swarm.name, config.swarm.id) == ("our-swarm", made.invite.swarm_id)
    assert len(made.invite.swarm_id) == 32 and int(made.invite.swarm_id, 16)
    assert (config.coordinator.kind, config.coordinator.round_seconds) == ("clock", 60.0)
    assert before - 1 <= config.coordinator.epoch <= time.time()
    assert config.tasks.datasets == "embedded" and config.swarm.shards == 32 and config.swarm.secret_file is None
    assert made.invite.peers == (f"/ip4/203.0.113.7/tcp/38751/p2p/{made.peer_id}",)
    assert load(where.state / "identity.key").peer_id == made.peer_id
    assert where.main.read_text() == LISTEN


def test_what_fits_the_rounds_of_the_new_swarm_is_in_order_whatever_those_before_were(tmp_path: Path) -> None:
    where = place(tmp_path, "network: {listen: [/ip4/203.0.113.7/tcp/38751], gather_seconds: 400}\n")
    with pytest.raises(ConfigurationError, match="the whole round of 60 seconds"):
        found(where)
    assert found(where, round_seconds=900.0).invite.round_seconds == 900.0


def test_two_foundings_are_two_swarms(tmp_path: Path) -> None:
    assert found(place(tmp_path / "a")).invite.swarm_id != found(place(tmp_path / "b")).invite.swarm_id


def test_the_drop_in_is_not_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    where = place(tmp_path)
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            found(where)
        finally:
            os.umask(before)
        assert where.drop_in.stat().st_mode & 0o7777 == 0o640
        assert where.drop_in.parent.stat().st_mode & 0o7777 == 0o750
        assert os.listdir(where.drop_in.parent) == ["50-swarm.yaml"]
        change.leave(where)
        where.drop_in.parent.rmdir()


def test_who_joins_has_all_that_must_agree_and_knows_the_founder(tmp_path: Path) -> None:
    mix = "tasks: {datasets: [{name: gcd, weight: 2, config: {max_value: 90}}, {name: lcm}]}\nswarm: {shards: 4}\n"
    first, second = place(tmp_path / "a", LISTEN + mix), place(tmp_path / "b")
    made = found(first, round_seconds=7.5)
    joined = change.join(second, made.word)
    one, other = first.load(), second.load()
    assert agreement_of(one) == agreement_of(other) and agreement_of(one).parts[0][:2] == ("gcd", 2 / 3)
    assert one.swarm.id == other.swarm.id and other.swarm.peers == made.invite.peers
    assert joined.peer_id != made.peer_id and joined.invite.config_hash == made.invite.config_hash


def test_the_command_line_takes_as_many_nodes_as_there_can_be_shards_for() -> None:
    assert arguments.MOST_NODES == MOST_NODES


@pytest.mark.parametrize(
    ("nodes", "shards"), [(None, 4), (1, 1), (16, 1), (17, 2), (512, 32), (10_000, 625), (16_384, 1024)]
)
def test_a_swarm_founded_for_so_many_nodes_has_a_shard_for_each_sixteen(
    tmp_path: Path, nodes: int | None, shards: int
) -> None:
    first, second = place(tmp_path / "a", LISTEN + "swarm: {shards: 4}\n"), place(tmp_path / "b")
    made = found(first, nodes=nodes)
    joined = change.join(second, made.word)
    assert first.load().swarm.shards == second.load().swarm.shards == joined.invite.shards == shards
    hashes = {agreement_of(where.load()).hash for where in (first, second)}
    assert hashes == {made.invite.config_hash} and decode(made.word).shards == shards
    default = agreement_of(first.load().model_copy(update={"swarm": Config().swarm}))
    assert (default.hash in hashes) == (shards == 32)


@pytest.mark.parametrize("swarm_id", ["1234e567", "00112233", "12345678"])
def test_an_id_that_reads_like_a_number_stays_a_text(tmp_path: Path, swarm_id: str) -> None:
    where = place(tmp_path / "b")
    change.join(where, encode(replace(found(place(tmp_path / "a")).invite, swarm_id=swarm_id)))
    assert where.load().swarm.id == swarm_id


def test_any_member_invites_with_its_own_address_and_those_it_knows(tmp_path: Path) -> None:
    second = place(tmp_path / "b", "network: {announce: [/ip4/198.51.100.9/tcp/1]}\n")
    made = found(place(tmp_path / "a"))
    joined = change.join(second, made.word)
    again = change.invite(second)
    assert again.invite == joined.invite == decode(again.word)
    assert again.invite.peers == (f"/ip4/198.51.100.9/tcp/1/p2p/{joined.peer_id}", *made.invite.peers)


def test_an_announced_address_is_kept_and_goes_into_the_invite(tmp_path: Path) -> None:
    where = place(tmp_path)
    made = found(where, announce=("/ip4/198.51.100.9/tcp/4444",))
    assert where.load().network.announce == ("/ip4/198.51.100.9/tcp/4444",)
    assert made.invite.peers == (f"/ip4/198.51.100.9/tcp/4444/p2p/{made.peer_id}",)
    change.join(where, made.word)
    assert where.load().network.announce == ("/ip4/198.51.100.9/tcp/4444",)
    assert where.load().swarm.peers == ()  # not itself


def test_the_secret_of_a_private_swarm_travels_in_the_invite_and_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    first, second = place(tmp_path / "a"), place(tmp_path / "b")
    made = found(first, private=True)
    change.join(second, made.word)
    assert made.invite.secret is not None
    for where in (first, second):
        file = where.load().swarm.secret_file
        assert file == str(where.state / "swarm.secret") and read_swarm_secret(file, {}) == made.invite.secret
        assert Path(file).stat().st_mode & 0o7777 == 0o600
        assert made.invite.secret not in where.drop_in.read_text()
    assert change.invite(second).invite.secret == made.invite.secret


def test_leaving_takes_the_drop_in_and_the_secret_and_nothing_else(tmp_path: Path) -> None:
    where = place(tmp_path)
    (where.state / "checkpoints").mkdir()
    made = found(where, private=True)
    assert change.leave(where) == (made.invite.swarm_id, None)
    assert sorted(os.listdir(where.state)) == ["checkpoints", "identity.key"]
    assert where.load() == Config.model_validate({"network": {"listen": ["/ip4/203.0.113.7/tcp/38751"]}})
    with pytest.raises(ConfigurationError, match=r"in no swarm.*50-swarm\.yaml"):
        change.leave(where)
    with pytest.raises(ConfigurationError, match="in no swarm"):
        change.invite(where)


def test_a_member_does_not_slip_into_another_swarm(tmp_path: Path) -> None:
    where = place(tmp_path / "a")
    made, other = found(where), found(place(tmp_path / "b"))
    refused(where, other.word, rf"50-swarm\.yaml:\d+: this node is in the swarm {made.invite.swarm_id}.*swarmd leave")
    with pytest.raises(ConfigurationError, match="`swarmd leave` first"):
        found(where)
    with pytest.raises(ConfigurationError, match="`swarmd leave --state DIR` first"):
        found(replace(where, options="--state DIR"))
    change.leave(where)
    assert change.join(where, other.word).invite.swarm_id == other.invite.swarm_id


def test_a_membership_by_hand_is_named_and_left_alone(tmp_path: Path) -> None:
    where = place(tmp_path / "a", LISTEN + "coordinator: {kind: clock}\nswarm:\n  id: abcdef12\n")
    refused(where, found(place(tmp_path / "b")).word, r"config\.yaml:4: .*abcdef12 already; take swarm\.id out there")
    with pytest.raises(ConfigurationError, match=r"config\.yaml:4: swarm\.id is set there"):
        change.leave(where)


def test_what_overrules_the_swarm_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    word = found(place(tmp_path / "a")).word
    where = place(tmp_path / "b")
    (tmp_path / "b" / "config.d").mkdir()
    later = tmp_path / "b" / "config.d" / "60-local.yaml"
    later.write_text("tasks:\n  datasets: rl-swarm\n")
    refused(where, word, rf"{later}:2: tasks\.datasets is set there")
    later.unlink()
    by_variable = replace(where, environ={"SWARMD_COORDINATOR__ROUND_SECONDS": "30"})
    refused(by_variable, word, r"environment SWARMD_COORDINATOR__ROUND_SECONDS: coordinator\.round_seconds is set")


def test_the_peers_that_a_user_has_named_stay_beside_those_of_the_invite(tmp_path: Path) -> None:
    made = found(place(tmp_path / "a"))
    own = f"/ip4/198.51.100.1/tcp/1/p2p/{found(place(tmp_path / 'c')).peer_id}"
    where = place(tmp_path / "b", f"{LISTEN}swarm: {{peers: ['{own}']}}\n")
    assert change.join(where, made.word).invite.peers[1:] == (*made.invite.peers, own)
    assert where.load().swarm.peers == (*made.invite.peers, own)
    change.join(where, made.word)
    assert where.load().swarm.peers == (*made.invite.peers, own)
    with pytest.raises(ConfigurationError, match=r"config\.yaml:2: swarm\.peers: .* alone; take swarm\.peers out, or"):
        change.leave(where)
    no_address = place(tmp_path / "e", f"{LISTEN}swarm: {{peers: [{{a: b}}]}}\n")
    refused(no_address, made.word, r"config\.yaml:2: swarm\.peers")
    founding = place(tmp_path / "d", f"{LISTEN}swarm: {{peers: ['{own}']}}\n")
    assert own in found(founding).invite.peers and founding.load().swarm.peers == (own,)


def test_a_later_list_of_peers_may_add_to_those_of_the_swarm_and_not_stand_in_their_place(tmp_path: Path) -> None:
    made = found(place(tmp_path / "a"))
    own = f"/ip4/198.51.100.1/tcp/1/p2p/{found(place(tmp_path / 'c')).peer_id}"
    where = place(tmp_path / "b")
    (tmp_path / "b" / "config.d").mkdir()
    later = tmp_path / "b" / "config.d" / "60-local.yaml"
    later.write_text(f"swarm:\n  peers: ['{own}']\n")
    refused(where, made.word, rf"{later}:2: swarm\.peers .* in place of .*; add {made.invite.peers[0]} there, or")
    later.write_text(f"swarm:\n  peers: ['{own}', '{made.invite.peers[0]}']\n")
    change.join(where, made.word)
    assert where.load().swarm.peers == (own, *made.invite.peers)


def test_another_version_of_the_tasks_is_refused_and_named(tmp_path: Path) -> None:
    made = found(place(tmp_path / "a")).invite
    where = place(tmp_path / "b")
    foreign = replace(made, config_hash="0" * 64, reasoning_gym="0.1.9")
    refused(where, encode(foreign), r"made by reasoning-gym 0\.1\.9, and this node has ")
    refused(where, encode(replace(made, config_hash="0" * 64)), "makes other tasks of the same settings")
    refused(where, encode(replace(made, datasets="unheard-of")), "there is no preset 'unheard-of'")


def test_an_invite_that_names_no_node_is_refused_and_the_way_to_a_better_one_told(tmp_path: Path) -> None:
    made = found(place(tmp_path / "a"))
    where = place(tmp_path / "b")
    nowhere = encode(replace(made.invite, peers=()))
    refused(where, nowhere, r"our-swarm names no node.*`swarmd invite` on a node .* network\.announce: \[")
    change.join(where, made.word)
    refused(where, nowhere, "names no node")
    assert where.load().swarm.peers == made.invite.peers


def test_a_private_swarm_of_a_legacy_dialect_is_refused(tmp_path: Path) -> None:
    where = place(tmp_path, LISTEN + "swarm: {dialect: genrl-0.3}\n")
    with pytest.raises(ConfigurationError, match=r"genrl-0\.3 cannot keep a swarm private"):
        found(where, private=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config-state", "config.yaml"]
    assert found(where).invite.dialect == "genrl-0.3"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "my swarm"}, "NAME 'my swarm': must be a name"),
        (
            {"announce": ("203.0.113.7:1",)},
            "--announce '203.0.113.7:1': must be a multiaddress .* such as /ip4/203.0.113.7/tcp/38751",
        ),
        ({"announce": ("/ip4/0.0.0.0/tcp/38751",)}, "that others can call.*never 0.0.0.0 or ::"),
        ({"announce": ("/ip6/::/udp/38751/quic-v1",)}, "that others can call.*never 0.0.0.0 or ::"),
        ({"datasets": "nope"}, "there is no preset 'nope'"),
    ],
)
def test_a_founding_with_a_mistake_changes_nothing(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    where = place(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        found(where, **given)
    assert tree(tmp_path) == before


def test_a_founder_must_listen(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"network\.listen is empty"):
        found(place(tmp_path, "network: {listen: []}\n"))


def test_leaving_is_refused_where_the_rest_could_not_be_used(tmp_path: Path) -> None:
    where = place(tmp_path)
    found(where)
    where.main.write_text("coordinator: {kind: clock}\n")
    with pytest.raises(ConfigurationError, match="clock needs swarm.id.*\nmend that first"):
        change.leave(where)
    assert where.drop_in.exists()


def test_an_instance_has_a_swarm_of_its_own_beside_the_main_node(tmp_path: Path) -> None:
    main, second = place(tmp_path), place(tmp_path, name="second")
    first = found(main)
    assert second.load().swarm.id == first.invite.swarm_id  # config.d holds for all
    other = found(second)
    assert second.drop_in == tmp_path / "second.d" / "50-swarm.yaml"
    assert (main.load().swarm.id, second.load().swarm.id) == (first.invite.swarm_id, other.invite.swarm_id)
    left, still = change.leave(second)
    assert left == other.invite.swarm_id and still is not None and "config.d/50-swarm.yaml" in still
    assert second.load().swarm.id == first.invite.swarm_id


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
@pytest.mark.parametrize("closed", ["config.yaml", "config.d", "50-swarm.yaml"])
def test_who_may_not_touch_the_services_files_is_told_the_way_out(public: Path, closed: str) -> None:
    where, other = place(public / "etc"), place(public / "other")
    word = found(other).word
    found(where)
    if closed == "50-swarm.yaml":  # it can be seen, but its folder is root's
        os.chmod(where.drop_in.parent, 0o755)
        os.chmod(where.drop_in, 0o644)
    else:
        os.chmod(public / "etc" / closed, 0o700)
        os.chmod(where.drop_in.parent, 0o755 if closed == "config.yaml" else 0o700)
    acts: list[Callable[[], object]] = [lambda: change.leave(where)]
    if closed != "50-swarm.yaml":
        acts += [lambda: found(where), lambda: change.join(where, word), lambda: change.invite(where)]
    for act in acts:
        with nobody(), pytest.raises(ConfigurationError, match=r"Permission denied; run this with sudo") as refusal:
            act()
        assert "in no swarm" not in str(refusal.value)
    assert where.drop_in.exists()


def test_a_full_or_closed_folder_leaves_no_secret_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = place(tmp_path)

    def full(path: Path, text: str) -> None:
        raise ConfigurationError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(swarm_drop_in, "write", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        found(where, private=True)
    assert os.listdir(where.state) == ["identity.key"]
    monkeypatch.undo()
    where.drop_in.parent.write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"config\.d"):
        found(where)


def test_a_rejoining_that_fails_keeps_the_old_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = place(tmp_path / "b")
    made = found(place(tmp_path / "a"), private=True)
    change.join(where, made.word)
    file = where.state / "swarm.secret"
    before, mode = tree(where.main.parent), file.stat().st_mode

    def full(path: Path, text: str) -> None:
        assert read_swarm_secret(str(file), {}) == "n" * 43, "the drop-in is written last"
        raise ConfigurationError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(swarm_drop_in, "write", full)
    other = encode(replace(made.invite, secret="n" * 43))
    for _ in range(2):  # the second time over what the first one left
        refused(where, other, "No space left")
        assert tree(where.main.parent) == before and file.stat().st_mode == mode
    monkeypatch.undo()
    assert where.load().swarm.secret_file == str(file) and read_swarm_secret(str(file), {}) == made.invite.secret
    change.join(where, other)
    assert read_swarm_secret(str(file), {}) == "n" * 43
    assert sorted(os.listdir(where.state)) == ["identity.key", "swarm.secret"]


def test_what_an_interrupted_rejoining_left_is_cleared_away(tmp_path: Path) -> None:
    where = place(tmp_path / "b")
    made = found(place(tmp_path / "a"), private=True)
    change.join(where, made.word)
    left = where.state / ".swarm.secret.old"
    left.write_text("of an interrupted one")
    change.join(where, made.word)
    assert read_swarm_secret(str(where.state / "swarm.secret"), {}) == made.invite.secret
    assert sorted(os.listdir(where.state)) == ["identity.key", "swarm.secret"]
    left.write_text("of an interrupted one")
    change.leave(where)
    assert os.listdir(where.state) == ["identity.key"], "no secret stays behind"


def test_the_agreement_follows_from_all_that_must_agree_and_nothing_else() -> None:
    def hashed(**sections: Any) -> str:
        swarm = {"id": "abcdef12", **sections.pop("swarm", {})}
        coordinator = {"kind": "clock", **sections.pop("coordinator", {})}
        return agreement_of(Config.model_validate({"swarm": swarm, "coordinator": coordinator, **sections})).hash

    gcd, lcm = {"name": "gcd"}, {"name": "lcm", "weight": 2.0}
    different = [
        hashed(),
        hashed(swarm={"shards": 33}),
        hashed(swarm={"dialect": "genrl-0.3"}),
        hashed(coordinator={"epoch": 1.0}),
        hashed(coordinator={"round_seconds": 61.0}),
        hashed(tasks={"datasets": "rl-swarm"}),
        hashed(tasks={"datasets": [gcd, lcm]}),
        hashed(tasks={"datasets": [lcm, gcd]}),
        hashed(tasks={"datasets": [gcd, {"name": "lcm"}]}),
        hashed(tasks={"datasets": [gcd, {**lcm, "config": {"max_value": 50}}]}),
        hashed(tasks={"environment": "somebodys.package:factory"}),
    ]
    assert len(set(different)) == len(different)
    assert hashed(training={"group_size": 4}, swarm={"name": "x"}, network={"relay": True}) == hashed()
    assert hashed(tasks={"datasets": [{**gcd, "weight": 2.0}, {**lcm, "weight": 4.0}]}) == different[6]


def test_no_swarm_is_founded_or_joined_with_tasks_that_others_cannot_make(tmp_path: Path) -> None:
    word = found(place(tmp_path / "one")).word
    alone = place(tmp_path / "two", f"{LISTEN}tasks: {{environment: 'somebodys.package:factory'}}\n")
    message = r"config\.yaml:2: tasks\.environment is somebodys.package:factory.*nothing would be.*reasoning_gym"
    refused(alone, word, message)
    with pytest.raises(ConfigurationError, match=message):
        found(alone)
