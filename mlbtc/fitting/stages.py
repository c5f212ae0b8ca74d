"""The order of attack: what is exact first, then rounds over levels, then steps of all factors together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from mlbtc.fitting.closed import balanced, decompose, is_optimal
from mlbtc.fitting.levels import sweep
from mlbtc.fitting.newton import improve, is_small
from mlbtc.fitting.problem import Problem, random_values
from mlbtc.fitting.splits import extent

FLOOR = 1e-14
"""A relative error that is rounding."""
PATIENCE = 2
"""Iterations in a row that must gain less than the tolerance before a stage ends."""
TRIAL_STEPS = 12
"""Steps from each random start before the best of them goes on."""
FIRST_ROUNDS = 10
"""Rounds over the levels before all factors move together, where that is cheap: rounds start fast and then crawl."""

CLOSED = "closed form"
ROUNDS = "levels in turn"
STEPS = "all factors at once"
AGAIN = "from random factors"

Values = dict[str, Tensor]


@dataclass(slots=True)
class Course:
    """What happened so far: the best factors, and the error after every iteration.

    Attributes:
        problem: what is fitted.
        limit: iterations, at most.
        tolerance: the relative gain of an iteration below which a stage is done.
        progress: called with the iterations done and the error.
        values: the best factors.
        errors: the relative error after each iteration, of the best factors so far.
        stages: the stages that were run.
        converged: whether the last stage ended by itself.
    """

    problem: Problem
    limit: int
    tolerance: float
    progress: Callable[[int, float], None] | None = None
    values: Values = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    converged: bool = False

    @property
    def is_done(self) -> bool:
        """Whether no iteration is left or nothing is left to gain."""
        return len(self.errors) >= self.limit or self.is_exact

    @property
    def is_exact(self) -> bool:
        """Whether the error is rounding."""
        return bool(self.errors) and self.errors[-1] <= FLOOR

    def take(self, values: Values) -> None:
        """Count an iteration and keep its factors if they are the best."""
        error = self.problem.error(values)
        if not self.errors or error <= self.errors[-1]:
            self.values = values
        self.errors.append(min([error, *self.errors[-1:]]))
        if self.progress is not None:
            self.progress(len(self.errors), self.errors[-1])

    def run(self, stage: str, candidates: Iterator[Values]) -> None:
        """Take factors one after the other until they stop getting better."""
        self.stages.append(stage)
        idle, self.converged = 0, False
        for values in candidates:
            before = self.errors[-1] if self.errors else None
            self.take(values)
            gained = before is None or before - self.errors[-1] > self.tolerance * before
            idle = 0 if gained else idle + 1
            if idle == PATIENCE or self.is_exact:
                break
            if len(self.errors) >= self.limit:
                return
        self.converged = True


def follow(course: Course, seed: int, starts: int) -> None:
    """Run the stages that a problem calls for.

    Args:
        course: gets what is found.
        seed: of random starts.
        starts: how many of them, where there is no closed form to start from or it does not end the matter.
    """
    problem = course.problem
    if problem.is_tied or None in problem.trees:
        course.run(AGAIN, _from_random(problem, seed, starts, course.limit))
        return
    if len(problem.levels) == 1 and problem.is_whole:
        # Weights that go through the matrix leave the closed form what it is.
        through = problem.root is not None and holds_inputs(problem)
        course.run(CLOSED, iter([_closed(problem, through)]))
        if is_optimal(problem.trees[0]) and (problem.root is None or through):
            return
    else:
        course.run(ROUNDS, islice(sweep(problem, problem.padded(problem.matrix)), _rounds(course)))
    if not course.is_done:
        course.run(STEPS, improve(problem, course.values))
    if not course.is_done and is_small(problem):
        course.run(AGAIN, _from_random(problem, seed, starts, course.limit - len(course.errors)))


def _rounds(course: Course) -> int:
    """Return how many rounds over the levels are worth it: where steps are cheap or rounds see no weights, a few."""
    if is_small(course.problem):
        return FIRST_ROUNDS
    if course.problem.root is not None:
        return min(FIRST_ROUNDS, max(1, course.limit // 2))
    return course.limit


def holds_inputs(problem: Problem) -> bool:
    """Return whether M times any matrix is such a matrix again: one level, of which one factor holds all inputs."""
    if len(problem.levels) > 1 or not problem.is_whole:
        return False
    (level,) = problem.levels
    inputs = {name for name in level.inputs if level.sizes[name] > 1}
    holders = [set(names) for names in level.factors if set(names) & inputs]
    spans = extent(level.inputs, level.sizes) == problem.shape[1]
    return spans and not inputs & {*level.outputs} and (not inputs or (len(holders) == 1 and holders[0] >= inputs))


def _closed(problem: Problem, through: bool) -> Values:
    """Return the factors of one level, nearest to W, or nearest in the weighted norm if weights go through it."""
    level, tree = problem.levels[0], problem.trees[0]
    assert tree is not None
    found = decompose(level, tree, level.target(problem.weighted if through else problem.matrix))
    if not through:
        return found
    assert problem.inverse is not None
    # M C^(1/2) is known; M is that times the inverse root, and has the same rank.
    return decompose(level, tree, level.target(problem.dense(found) @ problem.inverse))


def _from_random(problem: Problem, seed: int, starts: int, limit: int) -> Iterator[Values]:
    """Yield the steps of the best of several random starts."""
    generator = torch.Generator().manual_seed(seed)
    trials: list[tuple[float, int, Values]] = []
    for _ in range(starts):
        values = random_values(problem, generator)
        for _, found in zip(range(min(TRIAL_STEPS, limit)), improve(problem, values), strict=False):
            values = found
            if problem.error(values) <= FLOOR:
                break
        trials.append((problem.error(values), len(trials), values))
        if trials[-1][0] <= FLOOR:
            break
    _, _, best = min(trials, key=lambda trial: trial[:2])
    yield best
    yield from improve(problem, best)


def finished(problem: Problem, values: Values) -> Values:
    """Return factors with the same matrix whose norms are equal within every level, where no tensor is tied."""
    if problem.is_tied:
        return values
    found: Values = {}
    for level in problem.levels:
        found |= balanced({name: values[name] for name in level.parameters})
    return found
