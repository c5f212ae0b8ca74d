"""What mlbtc finds on this machine: versions, processor, compiler, cache, and which target and backend run."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from mlbtc.attention import choose_backend, choose_decoder, mlr_attention
from mlbtc.attention.kernels.native import missing
from mlbtc.attention.triton import launch
from mlbtc.codegen import cache_directory, native
from mlbtc.codegen.matrix import build_kernel
from mlbtc.codegen.targets import choose_target
from mlbtc.codegen.triton.support import unsupported
from mlbtc.compiler import compile
from mlbtc.errors import MlbtcError
from mlbtc.spec import MLBTC, AttentionSpec, families

State = Literal["ok", "optional", "lost", "broken"]

OPTIONAL = {
    "matplotlib": "figures of mlbtc train: pip install 'mlbtc[plot]'",
    "triton": "kernels on GPUs, without which torch runs there: pip install 'mlbtc[triton]'",
    "transformers": "mlbtc's attention in its models: pip install 'mlbtc[transformers]'",
}
"""What may be missing, and what it is for."""

LOST_WITHOUT_COMPILER = (
    "matrices run their torch program and attention its PyTorch kernels, both slower on a CPU; everything else works. "
    "Install one (apt install g++, dnf install gcc-c++, xcode-select --install) or set CXX to one"
)

_TOLERANCE = 1e-5
_TOKENS, _RANKS, _VALUES = 1024, (48, 16), 16


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the examination.

    Attributes:
        section: what it belongs to.
        name: what was looked at.
        value: what was found.
        state: "ok"; "optional" where nothing needs what is not there; "lost" where mlbtc works without it, but slower;
            "broken" where it does not work.
        advice: what is lost and how to get it back.
    """

    section: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All facts, in the order in which they are shown."""

    facts: tuple[Fact, ...]

    @property
    def broken(self) -> tuple[Fact, ...]:
        """What must be mended before mlbtc is of use."""
        return tuple(fact for fact in self.facts if fact.state == "broken")

    def to_json(self) -> dict[str, Any]:
        """Return `{"usable": bool, "facts": [{"section", "name", "value", "state", "advice"}]}`."""
        return {"usable": not self.broken, "facts": [asdict(fact) for fact in self.facts]}


def examine() -> Examination:
    """Look at the machine, build a small kernel and compare what runs with float64; takes some seconds."""
    sections = (_versions, _machine, _compiler, _cache, _choices, _checks)
    return Examination(tuple(fact for section in sections for fact in section()))


def _versions() -> Iterator[Fact]:
    yield Fact("versions", "mlbtc", _version("mlbtc") or "not installed, imported from a checkout")
    yield Fact("versions", "Python", platform.python_version())
    yield Fact("versions", "torch", torch.__version__)
    for package, use in OPTIONAL.items():
        found = _version(package)
        missing = Fact("versions", package, "not installed", "optional", f"for {use}")
        yield Fact("versions", package, found) if found else missing


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Fact]:
    threads = os.environ.get("OMP_NUM_THREADS")
    source = f"OMP_NUM_THREADS={threads}" if threads else "torch's choice"
    yield Fact("machine", "processor", f"{native.cpu_model()}, {native.usable_cores()} cores for this process")
    yield Fact("machine", "threads", f"{torch.get_num_threads()} ({source})")
    yield Fact("machine", "vectors", f"{8 * native.vector_bytes()} bits")
    found = _accelerator()
    if found:
        yield Fact("machine", "GPU", found)
    else:
        yield Fact("machine", "GPU", "none that torch can use", "optional")


def _accelerator() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "Apple (mps)" if torch.backends.mps.is_available() else ""


def _compiler() -> Iterator[Fact]:
    command = native.compiler_command()
    if command is None:
        yield Fact("compiler", "C++", f"none: {native.no_compiler()}", "lost", LOST_WITHOUT_COMPILER)
        return
    try:
        yield Fact("compiler", "C++", f"{native.compiler()}: {native.compiler_version(command)}")
    except MlbtcError as error:
        yield Fact("compiler", "C++", f"none that works: {error}", "lost", LOST_WITHOUT_COMPILER)


def _cache() -> Iterator[Fact]:
    folder = cache_directory()
    source = "MLBTC_CACHE" if os.environ.get("MLBTC_CACHE") else "MLBTC_CACHE changes it"
    refusal = _refusal(folder)
    if refusal:
        advice = "set MLBTC_CACHE to a folder that can be written"
        yield Fact("cache", "folder", f"the cache {folder} cannot be written: {refusal}", "broken", advice)
        return
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    yield Fact("cache", "folder", f"{folder}, can be written ({source})")
    yield Fact("cache", "content", f"{len(sizes):,} files, {sum(sizes) / 2**20:.1f} MiB; may be deleted at any time")


def _refusal(folder: Path) -> str:
    """Return why a folder cannot be written, or an empty string; permissions alone do not tell, so a file is tried."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _choices() -> Iterator[Fact]:
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    target, reason = choose_target("auto", device, dtype)
    where = f"on {device}, {str(dtype).removeprefix('torch.')}"
    yield Fact("choices", "matrix", f"target {target} {where}: {reason}")
    choice = choose_backend(_TOKENS, _TOKENS, _RANKS, (_TOKENS, _TOKENS // 2), device=device, dtype=dtype)
    yield Fact("choices", "attention", f"backend {choice.backend} {where}, {_TOKENS} tokens: {choice.reason}")
    decoder = choose_decoder(device, dtype, sum(_RANKS))
    yield Fact("choices", "decoding", f"{decoder.backend} {where}: {decoder.reason}")


# What really runs -----------------------------------------------------------------------------------------------------


def _checks() -> Iterator[Fact]:
    if _refusal(cache_directory()):
        return
    yield _checked("torch program", partial(_program, "torch"), "broken", "please report this")
    if native.compiler() is not None:
        advice = 'target "cpp" fails and "auto" falls back to the torch program; set CXX to another compiler'
        yield _checked("C++ kernel", _fresh_kernel, "lost", advice)
    yield _triton()
    for backend in ("strips", "expanded"):
        yield _checked(f"attention {backend}", partial(_attention, backend, "cpu"), "broken", "please report this")
    fast = _fast_device()
    for backend, device, reason in (
        ("cpp", "cpu", missing(torch.float32)),
        ("triton", fast, launch.missing(fast, torch.float32, _VALUES)),
    ):
        name = f"attention {backend}"
        if reason:
            yield Fact("checks", name, f"does not run here: {reason}", "optional")
        else:
            yield _checked(name, partial(_attention, backend, device), "lost", f"backend {backend!r} fails")
    yield _checked("decoding", _decoding, "broken", "please report this")


def _checked(name: str, check: Callable[[], tuple[float, str]], state: State, advice: str) -> Fact:
    """Return the fact of a check, which returns an error against float64 and a message, or fails with `state`."""
    try:
        error, message = check()
    except (MlbtcError, OSError, RuntimeError) as failure:
        return Fact("checks", name, f"fails: {failure}", state, advice)
    if not error <= _TOLERANCE:
        return Fact("checks", name, f"wrong by {error:.0e} against float64", "broken", "its results cannot be trusted")
    return Fact("checks", name, f"runs, {error:.0e} from float64{message}")


def _spec() -> MLBTC:
    return families.mlr((24, 20), [3, 2], [1, 2]).named("doctor")


def _program(target: str, device: torch.device | str = "cpu") -> tuple[float, str]:
    module: Any = compile(_spec(), bias=True, dtype=torch.float32, device=device, target=target)
    torch.nn.init.normal_(module.bias)
    exact: Any = compile(_spec(), bias=True, dtype=torch.float64, target="torch")
    exact.load_state_dict(module.state_dict())
    x = torch.randn(7, 20)
    return _distance(module(x.to(device)).detach(), x.double() @ exact.to_dense().mT.detach() + exact.bias.detach()), ""


def _fresh_kernel() -> tuple[float, str]:
    """Build a kernel with its gradients in an empty folder, so that the compiler is asked and not the cache."""
    kernel = build_kernel(_spec())
    factors = [torch.randn(*shape) for shape in _shapes(_spec())]
    x, printed = torch.randn(7, 20), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(printed):
        kernel.folder = Path(folder)
        y = kernel.forward(x, factors, None)
        grad, *_ = kernel.backward(y, x, factors, [True, *(False for _ in factors), False])
    exact = [tensor.double().requires_grad_() for tensor in (x, *factors)]
    product = kernel.product(exact[0], exact[1:], None)
    (to_x,) = torch.autograd.grad(product, exact[0], y.double())
    assert grad is not None
    message = printed.getvalue().strip().splitlines()[0].removeprefix("mlbtc: ").partition(", kept")[0]
    return max(_distance(y, product.detach()), _distance(grad, to_x)), f"; {message}"


def _triton() -> Fact:
    """Compare the Triton kernels of a matrix on a GPU; without one nothing here can run them."""
    name, device = "Triton kernel", torch.device(_fast_device())
    reason = unsupported(device)
    if reason is not None:
        ahead = "; mlbtc doctor --kernels compiles them without a GPU" if _version("triton") else ""
        return Fact("checks", name, f"does not run here: {reason}{ahead}", "optional")
    advice = 'target "triton" fails; target="torch" runs on every device'
    return _checked(name, partial(_program, "triton", device), "lost", advice)


def _fast_device() -> str:
    """Return where Triton kernels run: on a GPU, else on the CPU, if only in Triton's interpreter."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _shapes(spec: MLBTC) -> list[list[int]]:
    factors = [(level, n) for level in spec.levels for n in range(len(level.expression.factors))]
    return [[int(size) for size in level.factor_shape(n)] for level, n in factors]


def _attention(backend: str, device: str) -> tuple[float, str]:
    """Compare a backend with the definition in float64, output and the gradient of the query."""
    drawn = [torch.randn(1, 2, 70, size) for size in (12, 12, _VALUES)]
    levels = ((8, 4), (None, 16))
    query, key, value = (x.to(device).requires_grad_() for x in drawn)
    found = mlr_attention(query, key, value, *levels, backend=backend)
    weight = torch.randn_like(found)
    (to_query,) = torch.autograd.grad(found, query, weight)
    query, key, value = (x.double().requires_grad_() for x in drawn)
    exact = mlr_attention(query, key, value, *levels, backend="reference")
    (exactly,) = torch.autograd.grad(exact, query, weight.cpu().double())
    return max(_distance(found.detach(), exact.detach()), _distance(to_query, exactly)), ""


@torch.no_grad()
def _decoding() -> tuple[float, str]:
    """Compare tokens decoded one by one through the reduced cache with the whole sequence in float64."""
    spec, device, tokens = AttentionSpec.mlr(width=32, heads=2, ranks=(12, 4), context=24), _fast_device(), 24
    layer: Any = compile(spec, dtype=torch.float32, device=device)
    exact: Any = compile(spec, dtype=torch.float64, device="cpu")
    exact.load_state_dict(layer.state_dict())
    x, cache = torch.randn(1, tokens, 32), layer.new_cache(1)
    steps = [layer(x[:, first : first + 1].to(device), cache=cache) for first in range(tokens)]
    return _distance(torch.cat(steps, dim=1), exact(x.double())), f"; by {cache.decoder().backend}"


def _distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.cpu().double() - exact).norm() / exact.norm())
