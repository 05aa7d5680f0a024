"""Printed values: formatted by the unit of their metric, with equal decimals in a column."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lecture4.train.metrics import Metric, decimals

MISSING = '\u2013'  # a dash


def format_value(value: Any, metric: Metric, spread: str = 'standard error') -> str:
    """A value, or the mean and error of samples [n], as text for a sentence: '97.8 ± 0.3 %', '31.20 dB'."""
    return f'{numbers([value], metric, spread)[0]} {metric.symbol}'.rstrip()


def plain(values: Sequence[Any]) -> tuple[list[str], bool]:
    """Cells of an entry that is not a metric, and whether all of them are numbers."""

    def cell(value):
        if value is None:
            return MISSING
        if isinstance(value, bool | np.bool_):
            return 'yes' if value else 'no'
        if isinstance(value, tuple | list):
            return ', '.join(map(cell, value))
        return f'{value:.4g}' if isinstance(value, float | np.floating) else str(value)

    present = [value for value in values if value is not None]
    return [cell(value) for value in values], bool(present) and all(map(is_number, present))


def published(values: Sequence[Any], metric: Metric) -> list[str]:
    """Published numbers on the metric's printed scale, with as many decimals as the longest has."""
    shown = {i: f'{metric.scale * value:.8g}' for i, value in enumerate(values) if is_number(value)}
    for i in shown:
        if metric.unit == 'fraction' and not 0 <= values[i] <= 1:
            raise ValueError(
                f'published {values[i]:g} of {metric.name}: expected a fraction in [0, 1]; '
                'divide percentages by 100, or give text'
            )
    places = max((len(text.partition('.')[2]) for text in shown.values()), default=0)
    return [
        f'{metric.scale * value:.{places}f}' if i in shown else plain([value])[0][0]
        for i, value in enumerate(values)
    ]


def numbers(values: Sequence[Any], metric: Metric, spread: str) -> list[str]:
    """Values of a metric, or samples [n] of it, on its printed scale with equal decimals."""
    means, errors = [], []
    for value in values:
        is_text = value is None or isinstance(value, str)
        draws = np.atleast_1d(np.asarray(math.nan if is_text else value, float))
        draws = draws * metric.scale
        means.append(float(draws.mean()) if draws.size else math.nan)
        error = math.nan
        if draws.size > 1:
            error = float(draws.std(ddof=1))
            error /= math.sqrt(draws.size) if spread == 'standard error' else 1
        errors.append(error)
    number = _format(means, errors, metric)
    cells = []
    for value, mean, error in zip(values, means, errors, strict=True):
        shown = number(mean) if math.isfinite(mean) else str(mean)
        if isinstance(value, str):
            shown = value
        elif value is None or np.size(value) == 0:
            shown = MISSING
        elif math.isfinite(error):
            shown += f' ± {number(error)}'
        cells.append(shown)
    return cells


def _format(
    means: Sequence[float], errors: Sequence[float], metric: Metric
) -> Callable[[float], str]:
    """The function number -> text of a column."""
    sizes = [abs(mean) for mean in means if mean and math.isfinite(mean)]
    largest = max(sizes, default=0.0)
    is_rate = metric.unit == 'fraction'
    digits = 4 if not is_rate else 3 if largest >= 1 else 2
    is_whole = metric.unit in ('count', '') and all(size.is_integer() for size in sizes)
    if is_whole and metric.unit == 'count' and not any(map(math.isfinite, errors)):
        return lambda value: f'{value:,.0f}'
    places = 0 if is_whole else decimals(means, digits=digits, least=int(is_rate))
    if spreads := [error for error in errors if error and math.isfinite(error)]:
        places = max(places, min(decimals(spreads, digits=1), places + 2))
    vanishing = sizes and min(sizes) < 0.5 * 10.0**-places
    if not is_rate and (largest >= 1e7 or 0 < largest < 1e-3 or vanishing):
        return lambda value: f'{value:.3g}'
    comma = ',' if metric.unit == 'count' else ''
    return lambda value: f'{value:{comma}.{places}f}'


def is_number(value: Any) -> bool:
    """Whether a value is a single number, of Python or NumPy."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
