"""The journal's catalog: every kind of event is explained, with fields that its records really carry."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from swarmd.system.events import EVENTS
from swarmd.system.message_ids import MESSAGE_IDS

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "systemd" / "swarmd.catalog"


def entries() -> dict[str, str]:
    """The catalog's text by message id."""
    text = "".join(line for line in CATALOG.read_text(encoding="utf-8").splitlines(True) if not line.startswith("#"))
    parts = re.split(r"^-- ([0-9a-f]{32})\n", text, flags=re.MULTILINE)
    assert not parts[0].strip(), "text before the first entry"
    assert len(set(parts[1::2])) == len(parts[1::2]), "an id stands twice in the catalog"
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fields_written() -> dict[str, set[str]]:
    """For each kind, the fields that all `event(kind, ...)` in the source give by name."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "swarmd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "event" and node.args):
                continue
            kind = node.args[0]
            if isinstance(kind, ast.Constant) and all(keyword.arg for keyword in node.keywords):
                given = {keyword.arg for keyword in node.keywords if keyword.arg} - {"priority"}
                found[kind.value] = found.get(kind.value, given) & given
    return found


def test_every_kind_of_event_has_an_id_of_its_own_and_an_entry() -> None:
    assert set(MESSAGE_IDS) == EVENTS
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", message) for message in MESSAGE_IDS.values())
    assert set(entries()) == set(MESSAGE_IDS.values())


def test_the_ids_are_those_that_were_given_out() -> None:
    # People filter by them, and accounts reach back over versions: changing one is a fault, not a tidying-up.
    given_out = re.findall(r"^# (\w+)\n-- ([0-9a-f]{32})$", CATALOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(given_out) == MESSAGE_IDS
    assert MESSAGE_IDS["service_stopped"] == "80eeebc1fe824de6a4906a4cc8b787bd"


@pytest.mark.parametrize("kind", sorted(MESSAGE_IDS))
def test_an_entry_says_what_it_is_and_what_to_do(kind: str) -> None:
    head, _, body = entries()[MESSAGE_IDS[kind]].partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert set(fields) == {"Subject", "Defined-By", "Support", "Documentation"}
    assert fields["Defined-By"] == "swarmd"
    assert len(fields["Subject"]) < 78
    assert len(body.split()) > 15
    assert all(len(line) <= 80 for line in body.splitlines())


def test_an_entry_names_only_fields_that_its_records_carry() -> None:
    written = fields_written()
    written["crashed"] = {"error", "reason"}  # those two are written by functions of their own
    written["refused"] = {"reason", "exit_code"}
    assert "child_replaced" in written, "the search in the source finds nothing"
    wrong = []
    for kind, message in MESSAGE_IDS.items():
        for name in re.findall(r"@(\w+)@", entries()[message]):
            known = name == "_SYSTEMD_UNIT" or name.removeprefix("SWARMD_").lower() in written.get(kind, {name})
            if kind in written and not known:
                wrong.append(f"{kind}: @{name}@ is not on every record; all have {sorted(written[kind])}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="no journalctl on this machine")
def test_systemd_takes_the_catalog(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, place)
    made = subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    listed = subprocess.run(["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == len(MESSAGE_IDS)
