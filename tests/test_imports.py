"""The arrow of imports, read from the source with `ast`: who may import whom, and what nobody imports."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ARROW = (
    ("errors",),
    ("spec",),
    ("graph",),
    ("plan",),
    ("analysis",),
    ("codegen",),
    ("attention",),
    ("compiler", "linear"),
    ("page",),
    ("fitting",),
    ("selection",),
    ("conversion", "integrations"),
    ("mup",),
    ("benchmarks", "doctor", "training"),
    ("tuner",),
    ("cli",),
    ("__main__",),
)
"""The parts of `mlbtc`, first to last: a part imports itself and earlier ones, never a sibling."""

PLACE = {part: place for place, parts in enumerate(ARROW) for part in parts}
FACE = "mlbtc"
CATCH_ALLS = {"helpers", "misc", "util", "utils"}
MAY_IMPORT_THE_FACE = ("cli", "__main__")
SYMBOLIC = ("errors", "spec", "graph", "analysis", "plan")
TENSORS_AND_TEMPLATES = ("torch", "jinja2")


@dataclass(frozen=True, slots=True)
class Module:
    """One source file of `mlbtc` and its import name."""

    name: str
    is_package: bool
    path: str
    source: str

    @property
    def part(self) -> str:
        """The part of `mlbtc` that the module belongs to."""
        return part_of(self.name)

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `from a.b import c` is `a.b.c`, `import a.b` is `a.b`."""

    by: Module
    line: int
    target: str

    @property
    def top(self) -> str:
        """The top-level package that the name is in."""
        return self.target.partition(".")[0]

    @property
    def where(self) -> str:
        """Who imports what, and where."""
        return f"{self.by.path}:{self.line}: {self.by.name} imports {self.target}"


def part_of(name: str) -> str:
    """Return the first name below `mlbtc`, or the face for `mlbtc` itself."""
    return name.split(".")[1] if "." in name else FACE


def modules(folder: Path = ROOT / "mlbtc", package: str = "mlbtc") -> Iterator[Module]:
    """Yield every module under `folder`, through links."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            is_package = path.stem == "__init__"
            name = package if is_package else f"{package}.{path.stem}"
            yield Module(name, is_package, str(path.resolve().relative_to(ROOT)), path.read_text())
        elif (path / "__init__.py").is_file():
            yield from modules(path, f"{package}.{path.name}")


def absolute(node: ast.ImportFrom, module: Module) -> str:
    """Return the absolute name of what `from ... import` imports from."""
    if not node.level:
        return node.module or ""
    base = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
    return ".".join([*base, *filter(None, [node.module])])


def imports(module: Module) -> Iterator[Import]:
    """Yield all imports of a module, also those in functions and by `import_module("name")`."""
    for node in ast.walk(ast.parse(module.source, module.path)):
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(names=names):
                targets = [f"{absolute(node, module)}.{alias.name}" for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                targets = [name]
            case _:
                continue
        yield from (Import(module, node.lineno, target) for target in targets)


def reversed_arrows(tree: Iterable[Module]) -> list[str]:
    """Return every import that goes against the arrow; the face itself may import anything."""
    complaints = []
    for module in tree:
        if module.part == FACE:
            continue
        if module.part not in PLACE:
            complaints.append(f"{module.path}: {module.part} has no place on the arrow; give it one in ARROW")
            continue
        for found in imports(module):
            if found.top == FACE and (reason := objection(module.part, found.target)):
                complaints.append(f"{found.where}; {reason}")
    return complaints


def objection(part: str, target: str) -> str:
    """Return why `part` may not import `target`, or an empty string."""
    other = part_of(target)
    if other not in PLACE:
        return "" if part in MAY_IMPORT_THE_FACE else "import it where it is defined, mlbtc itself is the face"
    if PLACE[other] > PLACE[part]:
        return f"{part} comes before {other}"
    return f"{part} and {other} are siblings" if PLACE[other] == PLACE[part] and other != part else ""


def forbidden(tree: Iterable[Module], parts: tuple[str, ...], packages: tuple[str, ...]) -> list[str]:
    """Return every import of one of `packages` by a module of `parts`."""
    return [
        found.where for module in tree if module.part in parts for found in imports(module) if found.top in packages
    ]


def star_imports(tree: Iterable[Module]) -> list[str]:
    """Return every `from ... import *`."""
    return [found.where for module in tree for found in imports(module) if found.target.endswith(".*")]


def catch_alls(tree: Iterable[Module]) -> list[str]:
    """Return every module whose name says nothing."""
    return [module.path for module in tree if module.name.rpartition(".")[2] in CATCH_ALLS]


def report(complaints: list[str]) -> str:
    return "\n" + "\n".join(complaints)


TREE = tuple(modules())


def test_imports_follow_the_arrow():
    assert not (complaints := reversed_arrows(TREE)), report(complaints)


def test_symbolic_parts_need_no_tensors_and_no_templates():
    assert not (complaints := forbidden(TREE, SYMBOLIC, TENSORS_AND_TEMPLATES)), report(complaints)


def test_the_face_needs_no_tensors_and_no_templates():
    assert not (complaints := forbidden(TREE, (FACE,), TENSORS_AND_TEMPLATES)), report(complaints)


def test_no_star_imports():
    assert not (complaints := star_imports(TREE)), report(complaints)


def test_no_catch_all_modules():
    assert not (complaints := catch_alls(TREE)), report(complaints)


def test_every_part_was_read():
    assert {module.part for module in TREE} >= {*PLACE, FACE} - {"__main__"}


class TestTheChecksCanFail:
    @staticmethod
    def made_up(name: str, source: str) -> list[Module]:
        is_package = name.endswith(".__init__")
        path = name.replace(".", "/") + ".py"
        return [Module(name.removesuffix(".__init__"), is_package, path, source)]

    @pytest.mark.parametrize(
        ("name", "source", "reason"),
        [
            ("mlbtc.errors", "import mlbtc.spec", "errors comes before spec"),
            ("mlbtc.spec.files", "from mlbtc import graph", "spec comes before graph"),
            ("mlbtc.spec.files", "from ..graph import build", "spec comes before graph"),
            ("mlbtc.spec.__init__", "from ..graph.build import graph", "spec comes before graph"),
            ("mlbtc.plan.steps", "from mlbtc.analysis import macs", "plan comes before analysis"),
            ("mlbtc.plan.steps", "def f():\n    import mlbtc.codegen.emit", "plan comes before codegen"),
            ("mlbtc.plan.steps", "if TYPE_CHECKING:\n    import mlbtc.cli", "plan comes before cli"),
            ("mlbtc.codegen.emit", "import_module('mlbtc.attention')", "codegen comes before attention"),
            ("mlbtc.codegen.emit", "importlib.import_module('mlbtc.cli')", "codegen comes before cli"),
            ("mlbtc.attention.layer", "import mlbtc.compiler", "attention comes before compiler"),
            ("mlbtc.compiler", "from mlbtc.training import loop", "compiler comes before training"),
            ("mlbtc.training.loop", "import mlbtc.benchmarks", "training and benchmarks are siblings"),
            ("mlbtc.benchmarks.cases", "import mlbtc.cli", "benchmarks comes before cli"),
            ("mlbtc.training.loop", "from mlbtc import MLBTC", "mlbtc itself is the face"),
            ("mlbtc.spec.files", "import mlbtc", "mlbtc itself is the face"),
        ],
    )
    def test_reversed(self, name, source, reason):
        (complaint,) = reversed_arrows(self.made_up(name, source))
        assert reason in complaint
        assert name.removesuffix(".__init__") in complaint

    @pytest.mark.parametrize(
        ("name", "source"),
        [
            ("mlbtc.spec.files", "from . import language\nfrom .language import Level"),
            ("mlbtc.spec.__init__", "from .language import Level\nfrom ..errors import SpecError"),
            ("mlbtc.analysis.macs", "from mlbtc.plan import plan"),
            ("mlbtc.compiler", "from mlbtc import attention, codegen, spec"),
            ("mlbtc.cli.bench", "from mlbtc import analyze\nimport mlbtc.benchmarks, mlbtc.training"),
            ("mlbtc.__init__", "from mlbtc.cli import main"),
            ("mlbtc.graph.build", "import networkx\nfrom mlbtclike import spec"),
        ],
    )
    def test_along_the_arrow(self, name, source):
        assert reversed_arrows(self.made_up(name, source)) == []

    def test_line_is_named(self):
        (complaint,) = reversed_arrows(self.made_up("mlbtc.spec.files", "\n\nfrom mlbtc.plan import plan"))
        assert complaint.startswith("mlbtc/spec/files.py:3: mlbtc.spec.files imports mlbtc.plan.plan; ")

    @pytest.mark.parametrize("source", ["import torch.nn", "from torch import nn", "def f():\n import jinja2"])
    def test_tensors_and_templates(self, source):
        assert forbidden(self.made_up("mlbtc.graph.build", source), SYMBOLIC, TENSORS_AND_TEMPLATES)
        assert not forbidden(self.made_up("mlbtc.codegen.emit", source), SYMBOLIC, TENSORS_AND_TEMPLATES)

    def test_star(self):
        assert star_imports(self.made_up("mlbtc.cli.main", "from mlbtc.spec import *"))

    def test_catch_all(self):
        assert catch_alls(self.made_up("mlbtc.training.utils", "")) == ["mlbtc/training/utils.py"]

    def test_part_without_a_place(self):
        (complaint,) = reversed_arrows(self.made_up("mlbtc.extras", "import mlbtc.spec"))
        assert complaint == "mlbtc/extras.py: extras has no place on the arrow; give it one in ARROW"
