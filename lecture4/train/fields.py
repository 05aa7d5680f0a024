"""Domains of config fields, as types: `learning_rate: Positive = 1e-3` is checked once, for every experiment.

The domains are annotations of the `annotated-types` package. `check` refuses a value outside its domain with one line
that names the option; `--help` prints `describe` after the default.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen

# Floats, finite.
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
FractionBelow1 = Annotated[float, Ge(0), Lt(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
InsideUnit = Annotated[float, Gt(0), Lt(1)]
# Integers.
AtLeast0 = Annotated[int, Ge(0)]
AtLeast1 = Annotated[int, Ge(1)]
AtLeast2 = Annotated[int, Ge(2)]
AtLeast4 = Annotated[int, Ge(4)]
AtLeast8 = Annotated[int, Ge(8)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
# Indices of two or more classes.
Classes = Annotated[tuple[AtLeast0, ...], MinLen(2)]
# At least one of each, in order.
Ints = Annotated[tuple[AtLeast1, ...], MinLen(1)]
Floats = Annotated[tuple[Positive, ...], MinLen(1)]
Names = Annotated[tuple[str, ...], MinLen(1)]


class _EvaluationOnly:
    """Marks fields that no training depends on."""


T = TypeVar('T')
# A field that evaluations and reports alone depend on: a finished run may be evaluated again with another value.
Evaluation = Annotated[T, _EvaluationOnly()]


def is_evaluation(hint: Any) -> bool:
    """Whether a field's type is marked as `Evaluation`."""
    is_annotated = typing.get_origin(hint) is Annotated
    return is_annotated and any(isinstance(item, _EvaluationOnly) for item in hint.__metadata__)


@functools.cache
def hints(config_type: type) -> dict[str, Any]:
    """Field name -> type with its annotations."""
    found = typing.get_type_hints(config_type, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(config_type)}


def check(config: Any):
    """Raise a ValueError for the first field whose value lies outside the domain of its type."""
    for name, hint in hints(type(config)).items():
        value = getattr(config, name)
        for part, domain, element in _parts(hint, value):
            if not _holds(domain, element):
                where = f'--{name}' if part is None else f'--{name} (entry {part + 1})'
                raise ValueError(f'{where} is {element}; it has to be {_words(domain)}')


def describe(hint: Any) -> str:
    """The domain of a type in short: '> 0', 'in [0, 1]', '>= 1', 'each >= 1'; '' without one."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return next(filter(None, map(describe, typing.get_args(hint))), '')
    if origin is not Annotated:
        elements = typing.get_args(hint)
        if origin is tuple and elements and (inner := describe(elements[0])):
            return f'each {inner}'
        return ''
    base, *domain = typing.get_args(hint)
    bounds = [item for item in domain if isinstance(item, (Ge, Gt, Le, Lt))]
    inner = describe(base)
    return _short(bounds) if bounds else inner


@functools.cache
def helps(config_type: type) -> dict[str, str]:
    """Field name -> help: the comment above the field, in the nearest class that has one."""
    comments: dict[str, str] = {}
    for owner in reversed(config_type.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        lines = inspect.getsource(owner).splitlines()
        (tree,) = ast.parse(textwrap.dedent('\n'.join(lines))).body
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                above = itertools.takewhile(
                    lambda line: line.startswith('#'),
                    (line.strip() for line in reversed(lines[: node.lineno - 1])),
                )
                words = [line.removeprefix('#').strip() for line in above]
                if words:
                    comments[node.target.id] = ' '.join(reversed(words))
    return {name: comments.get(name, '') for name in hints(config_type)}


def _parts(hint: Any, value: Any) -> Iterator[tuple[int | None, list[Any], Any]]:
    """(entry or None, domain, value) of a field and of the entries of a tuple."""
    origin, domain = typing.get_origin(hint), []
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            for option in typing.get_args(hint):
                yield from _parts(option, value)
        return
    if origin is Annotated:
        hint, *domain = typing.get_args(hint)
        yield None, domain, value
    if typing.get_origin(hint) is tuple and isinstance(value, tuple):
        elements = typing.get_args(hint)
        for i, item in enumerate(value):
            element = (
                elements[0] if elements[-1] is Ellipsis else elements[min(i, len(elements) - 1)]
            )
            for _, own, inner in _parts(element, item):
                yield i, own, inner
    elif hint is float:
        yield None, [math.isfinite], value


def _holds(domain: list[Any], value: Any) -> bool:
    for item in domain:
        match item:
            case Ge(ge=bound):
                holds = value >= bound
            case Gt(gt=bound):
                holds = value > bound
            case Le(le=bound):
                holds = value <= bound
            case Lt(lt=bound):
                holds = value < bound
            case MinLen(min_length=bound):
                holds = len(value) >= bound
            case _ if callable(item):
                holds = item(value)
            case _:
                holds = True
        if not holds:
            return False
    return True


def _words(domain: list[Any]) -> str:
    if domain == [math.isfinite]:
        return 'finite'
    minimum = next((item for item in domain if isinstance(item, MinLen)), None)
    if minimum is not None:
        return f'at least {minimum.min_length} value'
    named = {Ge: 'at least {}', Gt: 'above {}', Le: 'at most {}', Lt: 'below {}'}
    words = []
    for item in domain:
        if type(item) in named:
            bound = next(iter(dataclasses.asdict(item).values()))
            words.append(named[type(item)].format(bound))
    return ' and '.join(words)


def _short(bounds: list[Any]) -> str:
    low = next((item for item in bounds if isinstance(item, (Ge, Gt))), None)
    high = next((item for item in bounds if isinstance(item, (Le, Lt))), None)
    lower = None if low is None else low.ge if isinstance(low, Ge) else low.gt
    upper = None if high is None else high.le if isinstance(high, Le) else high.lt
    if upper is None:
        return f'{">=" if isinstance(low, Ge) else ">"} {lower}'
    if lower is None:
        return f'{"<=" if isinstance(high, Le) else "<"} {upper}'
    return f'in {"[" if isinstance(low, Ge) else "("}{lower}, {upper}{"]" if isinstance(high, Le) else ")"}'
