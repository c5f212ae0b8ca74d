"""What can be moved on a page: the symbols of its specs and the number of tokens, and the positions of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import log

from mlbtc.analysis.sweep import TOKENS, Sweep
from mlbtc.errors import AnalysisError, SpecError, nearest
from mlbtc.spec import MLBTC, AttentionSpec
from mlbtc.spec.sizes import MAX_SIZE, Condition

Spec = MLBTC | AttentionSpec

TOKENS_KEY = "tokens"
MOST_POSITIONS = 48
"""Of a slider whose range nobody gave."""
_AROUND = 16
_MOST_TRIED = 512


@dataclass(frozen=True, slots=True)
class Slider:
    """A symbol, or the number of tokens, and the values it takes.

    Attributes:
        key: `size:NAME`, or `tokens`.
        name: what people read.
        positions: the values, ascending.
        start: the one the page opens with.
        given: whether the positions were asked for.
    """

    key: str
    name: str
    positions: tuple[int, ...]
    start: int
    given: bool = False


def size_key(name: str) -> str:
    """Return the key of the slider of a symbol."""
    return f"size:{name}"


def make_sliders(specs: Sequence[Spec], ranges: Sequence[Sweep] = (), batch: int | None = None) -> tuple[Slider, ...]:
    """Return a slider for each symbol, those of one name are one, and the last for the number of tokens.

    Args:
        specs: what the page is about.
        ranges: the positions of some of them; the others have positions around the default of their symbol.
        batch: the number of tokens at the start.

    Raises:
        AnalysisError: a range is of no symbol or given twice, a symbol has neither a range nor a default, or no
            position of the sliders fits the specs.
    """
    matrices = [spec for spec in specs if isinstance(spec, MLBTC)]
    names = sorted({name for spec in matrices for name in spec.symbols})
    wanted = _by_name(ranges, names)
    defaults = {name: value for spec in reversed(matrices) for name, value in spec.defaults}
    sizes = [_size_slider(name, wanted.get(name), defaults.get(name), matrices) for name in names]
    tokens = None if TOKENS in names else wanted.get(TOKENS)
    return (*_fitting(sizes, matrices), _token_slider(specs, tokens, batch, TOKENS_KEY if TOKENS in names else TOKENS))


def _by_name(ranges: Sequence[Sweep], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for one in ranges:
        if one.name not in (*names, TOKENS):
            hint = nearest(one.name, (*names, TOKENS)) if names else "only T, the number of tokens, can move"
            raise AnalysisError(f"--range {one.name}: no spec has a symbol {one.name!r}; {hint}")
        if one.name in found:
            raise AnalysisError(f"--range {one.name} is given twice: give all its values in one")
        if min(one.values) < 1 or max(one.values) > MAX_SIZE:
            raise AnalysisError(f"--range {one.name}: values are from 1 to {MAX_SIZE} (2**24)")
        found[one.name] = tuple(sorted(set(one.values)))
    return found


def _size_slider(name: str, values: tuple[int, ...] | None, default: int | None, specs: Sequence[MLBTC]) -> Slider:
    if values is not None:
        start = default if default in values else values[len(values) // 2]
        assert start is not None
        return Slider(size_key(name), name, values, start, True)
    if default is None:
        raise AnalysisError(
            f"the symbol {name} has no value that its slider could start from: give it a range, --range "
            f"{name}=64:4096:2x, or a default, --set {name}=1024 or symbols: {{{name}: 1024}} in the file"
        )
    users = [spec for spec in specs if name in spec.symbols]
    # Where one symbol must divide another, doubles and halves fit most of the others'.
    candidates = _doubled(default) if any(_is_tangled(name, spec) for spec in users) else _candidates(default)
    tried = (value for value in candidates if value == default or _may_fit(name, value, users))
    return Slider(size_key(name), name, _thinned(tuple(tried), default, MOST_POSITIONS), default)


def _is_tangled(name: str, spec: MLBTC) -> bool:
    """Whether a condition is about a symbol and another one."""
    for condition in spec.conditions:
        sizes = (condition.divisor if isinstance(condition, Condition) else condition.least, condition.size)
        names = {s.name for size in sizes if not isinstance(size, int) for s in size.free_symbols}
        if name in names and len(names) > 1:
            return True
    return False


def _doubled(default: int) -> list[int]:
    """Return a default times powers of two, as far down as they are whole."""
    down = default & -default
    most = min(down, _AROUND)
    return [default // most << shift for shift in range((most * _AROUND).bit_length())]


def _candidates(default: int) -> list[int]:
    """Return numbers around a default that people choose, and squares and cubes, which roots in a spec need."""
    least, most = max(1, default // _AROUND), min(MAX_SIZE, default * _AROUND)
    plain = {digit << shift for digit in range(8, 16) for shift in range(21)} | set(range(1, 16))
    powers = {number**power for number in plain for power in (2, 3)}
    return sorted({number for number in plain | powers if least <= number <= most} | {default})


def _may_fit(name: str, value: int, specs: Iterable[MLBTC]) -> bool:
    """Whether a value fits all specs as far as it alone decides that."""
    try:
        for spec in specs:
            spec.bind(**{name: value})
    except SpecError:
        return False
    return True


def _thinned(values: Sequence[int], kept: int, most: int) -> tuple[int, ...]:
    """Return at most `most` of some values, evenly, the first, the last and `kept` among them."""
    if len(values) <= most:
        return tuple(values)
    places = {round(step * (len(values) - 1) / (most - 1)) for step in range(most)}
    # The nearest place gives way to the one that stays.
    own = values.index(kept)
    places -= {min(places - {0, len(values) - 1}, key=lambda place: abs(place - own))}
    return tuple(values[place] for place in sorted(places | {own}))


def thin(sliders: Sequence[Slider], names: Iterable[str], most: int) -> tuple[Slider, ...]:
    """Return sliders of which those of some names have at most `most` positions, except where a range was given."""
    keys = {size_key(name) for name in names}
    return tuple(
        Slider(s.key, s.name, _thinned(s.positions, s.start, most), s.start) if s.key in keys and not s.given else s
        for s in sliders
    )


def _token_slider(specs: Sequence[Spec], values: tuple[int, ...] | None, batch: int | None, name: str) -> Slider:
    contexts = [spec.context for spec in specs if isinstance(spec, AttentionSpec)]
    start = batch or max(contexts, default=1024)
    if values is None:
        most = min(MAX_SIZE, max(1 << 17, 16 * start))
        plain = {digit << shift for digit in range(4, 8) for shift in range(23)} | {1, 2, 3}
        values = tuple(sorted({number for number in plain if number <= most} | {start}))
        return Slider(TOKENS_KEY, name, values, start)
    if batch is not None and batch not in values:
        raise AnalysisError(f"--batch {batch} is no value of --range {name}")
    return Slider(TOKENS_KEY, name, values, start if start in values else values[len(values) // 2], True)


def _fitting(sliders: Sequence[Slider], specs: Sequence[MLBTC]) -> tuple[Slider, ...]:
    """Return the sliders with starts that fit all specs together: those they have, or near ones."""
    starts = {slider.name: slider.start for slider in sliders}
    problem = _problem(starts, specs)
    if problem is None:
        return tuple(sliders)
    moving = [sorted(s.positions, key=lambda value, s=s: abs(log(value / s.start))) for s in sliders]  # type: ignore[misc]
    for values in islice(product(*moving), _MOST_TRIED):
        starts = dict(zip(starts, values, strict=True))
        if _problem(starts, specs) is None:
            return tuple(Slider(s.key, s.name, s.positions, starts[s.name], s.given) for s in sliders)
    raise AnalysisError(f"no position of the sliders fits: {problem}")


def _problem(values: Mapping[str, int], specs: Sequence[MLBTC]) -> str | None:
    """Return why some values do not fit the specs."""
    try:
        for spec in specs:
            at(spec, values)
    except SpecError as error:
        return str(error)
    return None


def at(spec: MLBTC, values: Mapping[str, int]) -> MLBTC:
    """Return a spec without open symbols.

    Raises:
        SpecError: the values do not fit.
    """
    return spec.bind(**{name: values[name] for name in spec.symbols})
