"""The list of packages, the linked folders and what a bare import costs."""

import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
LINKED = sorted(name.removeprefix("mlbtc.") for name in SETUPTOOLS["package-dir"] if name != "mlbtc")


def packages_under(folder: Path, name: str) -> Iterator[str]:
    """Yield the import names of all packages from `folder` down, through links."""
    if not (folder / "__init__.py").is_file():
        return
    yield name
    for child in sorted(folder.iterdir()):
        if child.is_dir():
            yield from packages_under(child, f"{name}.{child.name}")


def list_complaints(listed: Sequence[str], root: Path) -> list[str]:
    """Return how the list of packages differs from the folders of `root`."""
    found = set(packages_under(root / "mlbtc", "mlbtc"))
    missing, gone = sorted(found - {*listed}), sorted({*listed} - found)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    return [
        *(f"{name} is a package but not in the list: the wheel would lack it" for name in missing),
        *(f"{name} is in the list but no folder with an __init__.py" for name in gone),
        *(f"{name} is in the list more than once" for name in twice),
    ]


def folder_complaints(package_dir: Mapping[str, str], root: Path) -> list[str]:
    """Return which entries of package-dir are not a real folder with a relative link inside `mlbtc`."""
    complaints = []
    for name, folder in package_dir.items():
        target = root / folder
        if target.is_symlink() or not (target / "__init__.py").is_file():
            complaints.append(f"{name}: {folder}/ should be a real folder with an __init__.py")
        if name == "mlbtc":
            continue
        link = root / name.replace(".", "/")
        if not link.is_symlink():
            complaints.append(f"{name}: {link.relative_to(root)} should be a link to {folder}/")
        elif os.readlink(link) != f"../{folder}":
            complaints.append(f"{name}: the link says {os.readlink(link)!r}, expected '../{folder}'")
    return complaints


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter with `cwd` on its path."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules in `sys.modules` after `statement`."""
    done = python(f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_package_is_listed():
    assert list_complaints(SETUPTOOLS["packages"], ROOT) == []


def test_package_dirs_are_folders_with_relative_links():
    assert folder_complaints(SETUPTOOLS["package-dir"], ROOT) == []


def test_every_link_is_a_listed_package():
    links = {path.name for path in (ROOT / "mlbtc").iterdir() if path.is_symlink()}
    assert links == {*LINKED}


def test_package_data_is_all_there_is():
    folders = {package: ROOT / package.replace(".", "/") for package in SETUPTOOLS["packages"]}
    data = {
        path.resolve()
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in folders[package].glob(pattern)
    }
    suffixes = (".jinja", ".css", ".js")
    found = {path.resolve() for folder in folders.values() for path in folder.rglob("*") if path.suffix in suffixes}
    assert data == found | {ROOT / "mlbtc/py.typed"}


def test_one_version():
    version = PYPROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "mlbtc/__init__.py").read_text().splitlines()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text().splitlines()


@pytest.mark.parametrize("folder", LINKED)
def test_bare_folder_name_is_refused(folder):
    done = python(f"import {folder}")
    assert done.returncode != 0, f"`import {folder}` went through"
    assert f"ImportError: import mlbtc.{folder}, not {folder}" in done.stderr


@pytest.mark.parametrize("folder", LINKED)
def test_linked_package_is_one_module(folder):
    done = python(f"import mlbtc.{folder} as package\nprint(package.__file__)")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == ROOT / folder / "__init__.py"


@pytest.mark.parametrize("module", ["mlbtc", "mlbtc.cli"])
def test_import_is_light(module):
    assert loaded_by(f"import {module}") & {"torch", "jinja2", "matplotlib"} == set()


class TestTheChecksCanFail:
    LISTED = ("mlbtc", "mlbtc.spec", "mlbtc.codegen")
    PACKAGE_DIR: ClassVar = {"mlbtc": "mlbtc", "mlbtc.codegen": "codegen"}

    @pytest.fixture
    def tree(self, tmp_path):
        """A small tree that passes: mlbtc, mlbtc.spec and the linked mlbtc.codegen."""
        for folder in ("mlbtc", "mlbtc/spec", "codegen"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "__init__.py").touch()
        (tmp_path / "mlbtc/codegen").symlink_to("../codegen")
        return tmp_path

    def test_good_tree(self, tree):
        assert list_complaints(self.LISTED, tree) == []
        assert folder_complaints(self.PACKAGE_DIR, tree) == []

    def test_package_missing_from_the_list(self, tree):
        (complaint,) = list_complaints(self.LISTED[:2], tree)
        assert complaint.startswith("mlbtc.codegen is a package but not in the list")

    def test_listed_package_without_folder(self, tree):
        (complaint,) = list_complaints([*self.LISTED, "mlbtc.graph"], tree)
        assert complaint.startswith("mlbtc.graph is in the list but no folder")

    def test_package_listed_twice(self, tree):
        (complaint,) = list_complaints([*self.LISTED, "mlbtc.spec"], tree)
        assert complaint == "mlbtc.spec is in the list more than once"

    def test_absolute_link(self, tree):
        (tree / "mlbtc/codegen").unlink()
        (tree / "mlbtc/codegen").symlink_to(tree / "codegen")
        (complaint,) = folder_complaints(self.PACKAGE_DIR, tree)
        assert "expected '../codegen'" in complaint

    def test_copy_in_place_of_a_link(self, tree):
        (tree / "mlbtc/codegen").unlink()
        (tree / "mlbtc/codegen").mkdir()
        (complaint,) = folder_complaints(self.PACKAGE_DIR, tree)
        assert complaint == "mlbtc.codegen: mlbtc/codegen should be a link to codegen/"

    def test_missing_folder(self, tree):
        (tree / "codegen/__init__.py").unlink()
        (complaint,) = folder_complaints(self.PACKAGE_DIR, tree)
        assert complaint == "mlbtc.codegen: codegen/ should be a real folder with an __init__.py"

    def test_import_that_is_not_light(self):
        assert "jinja2" in loaded_by("import jinja2")


VERSIONS = runpy.run_path(str(ROOT / ".ci" / "versions"))


def test_bounds_are_read_from_requirements() -> None:
    found = VERSIONS["bounds"](["opt_einsum>=3.4", "torch>=2.6", "sympy>=1.13.3", "a[b]>=2.0; extra == 'c'", "fsspec"])
    assert found == {"opt-einsum": "3.4", "torch": "2.6", "sympy": "1.13.3"}


def test_the_lowest_versions_suit_torch_too() -> None:
    of_torch = ["sympy>=1.13.3", "networkx>=2.5.1", "optree>=0.13.0; extra == 'optree'"]
    assert VERSIONS["lowest"](["sympy>=1.13.1", "networkx>=3.2"], of_torch) == {"sympy": "1.13.3", "networkx": "3.2"}


def test_versions_compare_as_numbers() -> None:
    assert VERSIONS["lowest"](["a>=2.9"], ["a>=2.10.1"]) == {"a": "2.10.1"}


def test_every_dependency_has_a_lowest_version() -> None:
    declared = VERSIONS["declared"]()
    assert len(VERSIONS["bounds"](declared)) == len(declared)
