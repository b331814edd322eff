"""What is installed, what is locked and what is imported agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STANDARD_LIBRARY = sys.stdlib_module_names | {"compression"}  # The latter from Python 3.14 on.
PINNED = re.compile(r"^([\w.-]+)==([^ ;\\]+)", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]) for requirement in requirements}


def pinned_in(name: str) -> set[tuple[str, str]]:
    return set(PINNED.findall((ROOT / name).read_text(encoding="utf-8")))


def test_pip_and_uv_lock_the_same_versions() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    by_uv = {(package["name"], package["version"]) for package in lock["package"]} - {
        (PROJECT["name"], PROJECT["version"])
    }
    assert pinned_in("requirements-dev.lock") == by_uv, "run `make lock`"
    assert pinned_in("requirements.lock") < by_uv


def test_every_declared_dependency_is_locked() -> None:
    runtime = names_of(PROJECT["dependencies"])
    assert runtime <= {name for name, _ in pinned_in("requirements.lock")}
    optional = PROJECT["optional-dependencies"]
    everything = runtime | names_of(optional["dev"]) | names_of(optional["evaluation"])
    assert everything <= {name for name, _ in pinned_in("requirements-dev.lock")}


def test_what_builds_the_package_is_locked() -> None:
    building = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert names_of(building) <= {name for name, _ in pinned_in("requirements-build.lock")}
    assert pinned_in("requirements-build.lock") <= pinned_in("requirements-dev.lock"), "run `make lock`"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"])
def test_the_locks_leave_the_choice_of_an_index_to_pip(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in text


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    always = names_of(PROJECT["dependencies"])
    for_evaluation = always | names_of(PROJECT["optional-dependencies"]["evaluation"])
    providers = packages_distributions()
    undeclared = set()
    for path in sorted((ROOT / "driftlock_otlp").rglob("*.py")):
        declared = for_evaluation if path.parent.name == "evaluation" else always
        if path.name == "scan.py":
            declared = always | {"cython"}  # what compiles it; without, nothing imports it
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - {"driftlock_otlp"}:
                known = {normal(distribution) for distribution in providers.get(top, [])}
                if top not in STANDARD_LIBRARY and not (known & declared or normal(top) in declared):
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert undeclared == set()


def test_what_only_evaluation_needs_is_not_loaded_by_the_command_line() -> None:
    extra = sorted({"matplotlib", "river", "sklearn"})
    script = f"import sys, driftlock_otlp.commands.registry; print([n for n in {extra} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_the_version_has_an_entry_in_the_changelog() -> None:
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
