"""The node's key: the form that hivemind has, the file that only its owner reads, the lock that one node holds."""

import base64
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.network import libp2p_keys
from swarmd.network.identity import (
    Identity,
    create,
    create_from,
    identity_path,
    load,
    load_or_create,
    lock_identity,
    name_of,
    peer_id_of,
    verify,
)
from swarmd.system.exits import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identity") / "identity.key"
    create(path)
    return path


@pytest.fixture(scope="module")
def identity(key_file: Path) -> Identity:
    return load(key_file)


# As hivemind and GenRL have it.


def test_the_peer_id_is_the_one_that_hivemind_derives(key_file: Path, identity: Identity) -> None:
    from hivemind.p2p import PeerID

    assert str(PeerID.from_identity(key_file.read_bytes())) == identity.peer_id == peer_id_of(identity.public_key)
    assert identity.peer_id.startswith("Qm") and len(identity.peer_id) == 46


def test_a_key_that_hivemind_made_is_taken(tmp_path: Path) -> None:
    from hivemind.p2p import P2P, PeerID

    path = tmp_path / "swarm.pem"
    P2P.generate_identity(str(path))
    assert load(path).peer_id == str(PeerID.from_identity(path.read_bytes()))
    assert libp2p_keys.private_key_bytes(libp2p_keys.parse_private_key(path.read_bytes())) == path.read_bytes()


def test_hivemind_takes_our_signature_and_we_take_its(identity: Identity, key_file: Path) -> None:
    from hivemind.utils.crypto import RSAPrivateKey, RSAPublicKey

    ours = libp2p_keys.parse_private_key(key_file.read_bytes())
    assert RSAPublicKey(ours.public_key()).verify(b"data", base64.b64encode(identity.sign(b"data")))
    theirs = RSAPrivateKey()
    public = libp2p_keys.public_key_bytes(theirs._private_key.public_key())
    assert verify(public, base64.b64decode(theirs.sign(b"data")), b"data")


def test_the_name_is_the_one_that_genrl_shows(identity: Identity) -> None:
    from genrl.misc_utils.name_utils import get_name_from_peer_id

    assert identity.name == name_of(identity.peer_id) == get_name_from_peer_id(identity.peer_id)
    assert name_of("QmcpQwkFp95NooU6EK7okhu7SquQ7TfzgWaNEbfJJ5tioc") == "galloping bold alpaca"


def test_the_identity_needs_neither_torch_nor_hivemind() -> None:
    code = (
        "import sys; from swarmd.network.identity import name_of; name_of('Qm'); "
        "print({'torch', 'hivemind', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Signatures.


def test_a_signature_holds_for_its_data_and_its_key_only(identity: Identity, tmp_path: Path) -> None:
    signature = identity.sign(b"data")
    assert len(signature) == 256 and verify(identity.public_key, signature, b"data")
    assert not verify(identity.public_key, signature, b"date")
    assert not verify(identity.public_key, signature[:-1], b"data")
    assert not verify(create(tmp_path / "other.key").public_key, signature, b"data")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_a_stranger_sends_is_no_signature_and_no_error(identity: Identity, data: st.DataObject) -> None:
    good = identity.public_key
    cut = data.draw(st.integers(0, len(good)))
    public = data.draw(st.binary(max_size=700) | st.binary(max_size=40).map(lambda rest: good[:cut] + rest))
    if public != good:
        assert not verify(public, identity.sign(b"x"), b"x")
    assert not verify(good, data.draw(st.binary(max_size=300)), b"x")


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_public_key_of_another_kind_or_form_is_not_taken() -> None:
    odd = rsa.generate_private_key(public_exponent=3, key_size=2048)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for private in (odd, weak):
        public = libp2p_keys.public_key_bytes(private.public_key())
        assert not verify(public, libp2p_keys.sign(private, b"x"), b"x")
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert not verify(libp2p_keys._message(spki(curve)), b"", b"x")


def test_a_key_has_one_form_and_so_one_peer_id(identity: Identity) -> None:
    """The length of the key could be written with a needless byte: the same key, but another peer id."""
    good = identity.public_key
    padded = good[:3] + bytes([good[3], good[4] | 0x80, 0]) + good[5:]
    assert peer_id_of(padded) != identity.peer_id
    assert not verify(padded, identity.sign(b"x"), b"x")
    assert not verify(good + b"\x1a\x00", identity.sign(b"x"), b"x")


# The file.


def test_the_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create(tmp_path / "identity.key")
    finally:
        os.umask(before)
    assert (tmp_path / "identity.key").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["identity.key"]


def test_the_identity_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    assert load_or_create(path).peer_id == load_or_create(path).peer_id == load(path).peer_id


def test_a_key_is_never_overwritten(key_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    first = create(path)
    assert create_from(key_file.read_bytes(), path) is None
    assert create(path).peer_id == first.peer_id
    assert os.listdir(tmp_path) == ["identity.key"]


def _made(path: str) -> str:
    return load_or_create(Path(path)).peer_id


def test_processes_that_start_at_once_get_one_identity(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        peer_ids = pool.map(_made, [str(tmp_path / "identity.key")] * 6, chunksize=1)
    assert len(set(peer_ids)) == 1 and os.listdir(tmp_path) == ["identity.key"]


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o601, 0o666])
def test_a_key_that_others_may_use_is_refused_with_the_command_that_mends_it(
    key_file: Path, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(key_file.read_bytes())
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*`chmod 0600 {path}`"):
        load(path)
    path.chmod(0o600)
    load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(key_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(key_file.read_bytes())
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to user 12345.*`chown 0 "):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no RSA key in libp2p's form"),
        (b"-----BEGIN RSA PRIVATE KEY-----\n", r"as text \(PEM\)"),
        (b"\x08\x01\x12\x40" + bytes(64), "an Ed25519 key"),
        (b"x" * 20_000, "larger than"),
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=f"{path}.*{message}"):
        load(path)


def test_a_cut_or_changed_key_is_refused(key_file: Path, tmp_path: Path) -> None:
    content = key_file.read_bytes()
    path = tmp_path / "identity.key"
    for damaged in (content[:-1], content[:600], content + b"\0", content[:600] + b"\xff" * 8 + content[608:]):
        path.write_bytes(damaged)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=str(path)):
            load(path)


def test_what_is_no_file_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, message in (("pipe", "not a regular file"), (".", "not a regular file"), ("none", "no such file")):
        with pytest.raises(ConfigurationError, match=message):
            load(tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.key.*cannot be written.*network\.identity_file"):
        load_or_create(tmp_path / "none" / "identity.key")


def test_the_configuration_says_where_the_key_is(tmp_path: Path) -> None:
    assert identity_path(None, tmp_path, {}) == tmp_path / "identity.key"
    assert identity_path("/etc/key", tmp_path, {}) == Path("/etc/key")
    credentials = {"CREDENTIALS_DIRECTORY": "/run/c"}
    assert identity_path("credential:swarmd_key", tmp_path, credentials) == Path("/run/c/swarmd_key")
    with pytest.raises(ConfigurationError, match=r"network\.identity_file.*CREDENTIALS_DIRECTORY"):
        identity_path("credential:swarmd_key", tmp_path, {})


# The lock.

HOLD = """
import sys
from pathlib import Path
from swarmd.network.identity import lock_identity
lock = lock_identity(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_node_with_the_same_key_is_told_of_the_first(key_file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(key_file)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=f"{key_file}.*in use by process {holder.pid}.*--state DIR"):
            lock_identity(key_file)
        holder.kill()
    with lock_identity(key_file):  # the kernel let go of it
        pass


def test_a_released_lock_can_be_taken_again(key_file: Path) -> None:
    first = lock_identity(key_file)
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        lock_identity(key_file)
    first.release()
    lock_identity(key_file).release()
