"""Rules about the source itself: short modules, no swallowed exceptions, nothing of one machine alone."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 350
BROAD = {"Exception", "BaseException"}


def modules() -> list[Path]:
    return sorted((ROOT / "swarmd").rglob("*.py"))


def files_of_the_repository() -> list[Path]:
    """What git knows or would add; in an export without .git, all but the folders that tools make."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if (ROOT / ".git").exists() and listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
        return sorted(path for name in names if name and (path := ROOT / name).is_file())
    made = re.compile(r"\.venv|\.run|__pycache__|\.\w+_cache|\.hypothesis|build|dist|.*\.egg-info")
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(map(made.fullmatch, path.relative_to(ROOT).parts))
    )


def swallowed(source: str) -> list[str]:
    """One sentence for every `except` that hides errors nobody thought of."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _name(node.func) == "suppress" and any(map(_is_broad, node.args)):
            found.append(f"line {node.lineno}: suppress() of everything; name the exceptions")
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            found.append(f"line {node.lineno}: bare except; name the exceptions")
        elif _is_broad(node.type) and not _passes_on(node.body[-1]):
            if all(isinstance(step, ast.Pass | ast.Continue) or _is_constant(step) for step in node.body):
                found.append(f"line {node.lineno}: a broad except that does nothing; name the exceptions")
            elif not any(lines[n].strip().startswith("#") for n in (node.lineno - 2, node.lineno)):
                found.append(f"line {node.lineno}: a broad except without its reason in a comment beside it")
    return found


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_broad(node: ast.expr) -> bool:
    return any(map(_is_broad, node.elts)) if isinstance(node, ast.Tuple) else _name(node) in BROAD


def _passes_on(step: ast.stmt) -> bool:
    """A bare `raise` at the end: the handler tidies up and hides nothing."""
    return isinstance(step, ast.Raise) and step.exc is None


def _is_constant(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant)


# Written in two halves, so that this file does not hold what it looks for.
HOSTS = [
    first + second
    for first, second in (
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("py", "torch.org/whl"),
        ("pypi.nv", "idia.com"),
        ("deb", "ian.org/debian"),
        ("npm", "js.org"),
        ("ana", "conda.org"),
    )
]
INDEX = "https://wheels.example/" + "simple"
PLACES = [
    first + second
    for first, second in (
        ("/wo", "rk/"),
        ("/fa", "rm/"),
        ("/opt/", "pypi"),
        ("/opt/", "wheels"),
        ("/tmp/", "brief"),
    )
]
BELONGS_ELSEWHERE = re.compile(
    "|".join(
        [
            *(rf"\b{re.escape(host)}" for host in HOSTS),
            *(rf"(?<![\w.~-]){re.escape(place)}" for place in PLACES),
            r"https?://\S+/simple/?(?![\w-])",
        ]
    )
)


def belongs_elsewhere(text: str) -> Iterator[str]:
    """Each package registry, index address or path of one machine that the text names."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in BELONGS_ELSEWHERE.finditer(line):
            yield f"line {number}: {match.group()}"


def test_no_module_is_longer_than_a_reader_holds_in_mind() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > MOST_LINES]
    assert not long, f"over {MOST_LINES} lines, split by what they hold: {long}"


def test_no_exception_is_swallowed() -> None:
    found = [
        f"{path.relative_to(ROOT)}, {what}"
        for path in modules()
        for what in swallowed(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "handler",
    [
        "except:\n    log()",
        "except Exception:\n    pass",
        "# because\nexcept Exception:\n    pass",
        "# because\nexcept (ValueError, BaseException):\n    ...",
        "except Exception as error:\n    log(error)",
        "except Exception as error:\n    raise OSError from error",
    ],
)
def test_the_rule_on_exceptions_catches(handler: str) -> None:
    assert len(swallowed(f"try:\n    work()\n{handler}\n")) == 1


def test_the_rule_on_exceptions_catches_suppress() -> None:
    assert len(swallowed("with contextlib.suppress(Exception):\n    work()\n")) == 1


@pytest.mark.parametrize(
    "handler",
    [
        "except ValueError:\n    pass",
        "except BaseException:\n    tidy()\n    raise",
        "except (OSError, ValueError):\n    log()",
        "# A stranger's code may raise anything.\nexcept Exception as error:\n    log(error)",
        "except Exception as error:\n    # A stranger's code may raise anything.\n    log(error)",
    ],
)
def test_the_rule_on_exceptions_lets_through(handler: str) -> None:
    assert swallowed(f"try:\n    work()\n{handler}\n") == []


def test_no_file_names_a_package_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in files_of_the_repository():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        text = content.decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}, {what}" for what in belongs_elsewhere(text)]
    assert not found, "\n" + "\n".join(found)


def test_the_readme_maps_every_folder_in_one_line() -> None:
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in files_of_the_repository()} - {"./"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mapped = re.findall(r"^\| `([\w./-]+/)` \|", readme, re.MULTILINE)
    assert not (missing := folders - set(mapped)), f"no line in the README's map: {sorted(missing)}"
    assert not (gone := set(mapped) - folders), f"in the README's map, but not there: {sorted(gone)}"
    assert len(mapped) == len(folders), "a folder stands twice in the README's map"


def test_the_locks_say_what_to_install_and_nothing_about_where_from() -> None:
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    peers = {"peers-genrl-0.1", "peers-genrl-0.3"}
    assert {lock.stem for lock in locks} == {"build", "cpu", "cuda", "dev", "service"} | peers
    pin = re.compile(r"#.*|[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.+!]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    for lock in locks:
        odd = [line for line in lock.read_text().splitlines() if not pin.fullmatch(line)]
        assert not odd, f"{lock.name}: {odd[:5]}"


@pytest.mark.parametrize("line", [f"from files.{HOSTS[1]}", f"cd {PLACES[0]}main", f"index-url={INDEX}"])
def test_the_rule_on_places_catches(line: str) -> None:
    assert len(list(belongs_elsewhere(line))) == 1


@pytest.mark.parametrize("line", ["the work/life of a peer", f"{INDEX}-start", f"~{PLACES[0]}"])
def test_the_rule_on_places_lets_through(line: str) -> None:
    assert not list(belongs_elsewhere(line))
