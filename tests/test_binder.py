"""What Binder reads. The image itself is not built here: see the table of places in README."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

BINDER = ROOT / ".binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]


def lines(path: Path) -> list[str]:
    return [s for line in path.read_text("utf8").splitlines() if (s := line.split("#")[0].strip())]


PINS = {
    canonicalize_name(pin.name): pin.specifier
    for pin in map(Requirement, lines(ROOT / "constraints.txt"))
}


def needed() -> tuple[list[Requirement], list[str]]:
    """What .binder/requirements.txt asks for: packages, and pip's options."""
    asked = lines(BINDER / "requirements.txt")
    options = [line for line in asked if line.startswith("-")]
    return [Requirement(line) for line in asked if not line.startswith("-")], options


def test_requirements():
    packages, options = needed()
    assert "-e ." in options
    assert [p.name for p in packages] == ["jupyterlab-myst"]
    (constraints,) = [o.split()[1] for o in options if o.startswith("-c ")]
    # pip reads it relative to the file that names it.
    assert (BINDER / constraints).resolve() == ROOT / "constraints.txt"
    (python,) = lines(BINDER / "runtime.txt")
    assert python.removeprefix("python-") in SpecifierSet(PROJECT["requires-python"])


def test_constraints_agree_with_all_that_is_needed():
    """Every package asked for, and what it needs in turn, is pinned to a version that all allow."""
    asked, _ = needed()
    queue = [*asked, *map(Requirement, PROJECT["dependencies"])]
    for extra in ("book", "test"):
        queue += map(Requirement, PROJECT["optional-dependencies"][extra])
    seen = set()
    while queue:
        wanted = queue.pop()
        if (key := (str(wanted))) in seen:
            continue
        seen.add(key)
        name = canonicalize_name(wanted.name)
        if name in ("pip", "setuptools", "wheel"):  # pip freeze leaves them out
            continue
        assert name in PINS, f"{wanted} is not pinned in constraints.txt"
        (pin,) = PINS[name]
        assert wanted.specifier.contains(pin.version, prereleases=True), f"{wanted}: {pin}"
        try:
            further = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            pytest.fail(f"{name} is not installed here: `make install`")
        for text in further:
            requirement = Requirement(text)
            extras = wanted.extras or {""}
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras
            ):
                queue.append(requirement)
    assert len(seen) > 50


def test_start_runs_a_command():
    command = [BINDER / "start", sys.executable, "-c", "import os; print(os.environ)"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "'MODECONN_DEVICE': 'cpu'" in said and "'OMP_NUM_THREADS': '2'" in said


def test_post_build_trusts_every_notebook(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"JUPYTER_DATA_DIR": str(tmp_path), "PATH": path}
    command = [BINDER / "postBuild"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for notebook in (ROOT / "book").glob("*.ipynb"):
        assert f"Signing notebook: book/{notebook.name}" in run.stdout
