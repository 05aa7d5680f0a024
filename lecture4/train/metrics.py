"""Declared metrics: one name is one quantity on one scale, with a unit and a direction.

A key in metrics.jsonl and results.json is a metric's name, or a name and qualifiers
(`test_accuracy/PCA/5`); rows of an evaluation carry the prefix `eval/`. Rates are stored as fractions
in [0, 1] and printed as percent.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

EVAL = 'eval/'  # prefix of metrics of `Task.evaluate` during training
NOT_METRICS = ('step', 'seconds')  # entries of a row of metrics.jsonl that are not metrics
TOLERANCE = 1e-6  # tolerance of [0, 1]: rounding of a float32 mean
SYMBOLS = {
    'fraction': '%',
    'us': 'µs',
    'count': '',
}  # symbols of units; any other unit is printed unchanged
PERCENT = ('%', 'percent', 'percentage', 'percents')


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity that an experiment measures, declared once per experiment file.

    Attributes:
      name: Key in metrics.jsonl and results.json, without '/'.
      unit: 'fraction' (stored in [0, 1], printed as percent), 'count', 'nats', 'bits', 'dB', 's',
        'ms', 'us', '' (a plain number) or any other unit, printed unchanged ('nats/image').
      better: 'higher', 'lower', or '' where neither is better; then a sweep cannot rank by this metric.
      label: Label for tables and axes; if empty, the name with spaces for underscores.
      primary: Whether this is the one metric that an experiment is judged by.
      depends_on: Fields of the config that enter its formula, such as the weight of a penalty in a cost.
        A sweep over one of them does not rank by the metric.

    Raises:
      ValueError: A name with '/', percent as a unit, or another direction.
    """

    name: str
    unit: str = ''
    better: str = ''
    label: str = ''
    primary: bool = False
    depends_on: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.name or '/' in self.name or self.name in NOT_METRICS:
            raise ValueError(
                f"metric name {self.name!r}: expected a name without '/', other than "
                f'{" and ".join(NOT_METRICS)}'
            )
        if self.unit in PERCENT:
            raise ValueError(
                f"metric {self.name} has unit {self.unit!r}; use 'fraction' and values in [0, 1], "
                'which are printed as percent'
            )
        if self.better not in ('higher', 'lower', ''):
            raise ValueError(
                f"metric {self.name}: better is {self.better!r}, expected 'higher', 'lower' or ''"
            )
        if not self.label:
            object.__setattr__(self, 'label', self.name.replace('_', ' '))

    @property
    def scale(self) -> float:
        """Factor from the stored value to the printed one: 100 for fractions, otherwise 1."""
        return 100.0 if self.unit == 'fraction' else 1.0

    @property
    def symbol(self) -> str:
        """The unit as it is printed: '%', 'dB', 'µs', or '' for counts and plain numbers."""
        return SYMBOLS.get(self.unit, self.unit)

    @property
    def title(self) -> str:
        """Label and unit, for the head of a column or an axis: 'test accuracy (%)'."""
        return f'{self.label} ({self.symbol})' if self.symbol else self.label


def check_declared(declared: Iterable[Metric]):
    """Check that names are unique and exactly one metric is primary.

    Raises:
      ValueError: Otherwise; the message names the metrics.
    """
    declared = tuple(declared)
    names = [metric.name for metric in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'metrics declared twice: {", ".join(twice)}; one name is one quantity')
    primary = [metric.name for metric in declared if metric.primary]
    if len(primary) != 1:
        count = 'none' if not primary else ', '.join(primary)
        raise ValueError(
            f'expected exactly one primary metric of {", ".join(names)}, got {count}; '
            'set primary=True on one of them'
        )


def primary(declared: Iterable[Metric]) -> Metric:
    """The primary metric of a declaration that `check_declared` accepts."""
    return next(metric for metric in declared if metric.primary)


def name_of(key: str) -> str:
    """The metric's name in a key: 'recall' of 'eval/recall/cat'."""
    return key.removeprefix(EVAL).partition('/')[0]


def find(declared: Iterable[Metric], key: str) -> Metric | None:
    """The metric of a key (prefix `eval/` and qualifiers ignored), None where it is not declared."""
    return next((metric for metric in declared if metric.name == name_of(key)), None)


def metric_of(declared: Iterable[Metric], key: str, where: str = '') -> Metric:
    """The metric of a key (prefix `eval/` and qualifiers ignored).

    Raises:
      ValueError: The key is not declared; the message lists what is, and `where` the key occurred.
    """
    declared = tuple(declared)
    metric = find(declared, key)
    if metric is None:
        names = ', '.join(metric.name for metric in declared) or 'none'
        prefix = f'{where}: ' if where else ''
        raise ValueError(
            f'{prefix}metric {key} is not declared; the declared metrics are {names}; add '
            f'Metric({name_of(key)!r}, ...) to METRICS or correct the name'
        )
    return metric


def label_of(declared: Iterable[Metric], key: str) -> str:
    """Label and qualifiers of a key: 'recall, cat'; 'recall (evaluation)' of 'eval/recall'."""
    label = ', '.join([metric_of(declared, key).label, *key.removeprefix(EVAL).split('/')[1:]])
    return f'{label} (evaluation)' if key.startswith(EVAL) else label


def title_of(declared: Iterable[Metric], key: str) -> str:
    """Label, qualifiers and unit of a key: 'recall, cat (%)', 'recall (evaluation, %)'."""
    declared = tuple(declared)
    label, symbol = label_of(declared, key), metric_of(declared, key).symbol
    if not symbol:
        return label
    return f'{label[:-1]}, {symbol})' if key.startswith(EVAL) else f'{label} ({symbol})'


def check_metrics(
    declared: Iterable[Metric],
    values: Mapping[str, Any],
    where: str,
    *,
    primary_required: bool = True,
):
    """Check a row of metrics.jsonl or the metrics of a report against the declaration.

    Args:
      declared: The experiment's metrics.
      values: Key -> number, None, or an array of them (the variants of a sweep); 'step', 'seconds' and values that
        are not finite are ignored.
      where: Place, for the error message: 'metrics.jsonl, step 100', 'report'.
      primary_required: Whether the primary metric must be present under exactly its name.

    Raises:
      ValueError: A key is not declared, a fraction lies outside [0, 1] by more than 1e-6, or the
        primary metric is missing.
    """
    declared = tuple(declared)
    for key, value in values.items():
        if key in NOT_METRICS:
            continue
        metric = metric_of(declared, key, where)
        if metric.unit == 'fraction':
            _check_fraction(key, value, where)
    if primary_required and (name := primary(declared).name) not in values:
        raise ValueError(
            f'{where}: the primary metric {name} is missing; the keys are '
            f'{", ".join(values) or "none"}; report one value under exactly that name'
        )


def _check_fraction(key: str, value: Any, where: str):
    numbers = np.asarray(value, float)  # None becomes nan
    numbers = numbers[np.isfinite(numbers)]
    outside = numbers[(numbers < -TOLERANCE) | (numbers > 1 + TOLERANCE)]
    if outside.size:
        raise ValueError(
            f'{where}: {key} is {outside.flat[0]:g}, expected a fraction in [0, 1]; '
            'divide percentages by 100'
        )


def decimals(values: Iterable[float | int], *, digits: int = 4, least: int = 0) -> int:
    """Number of decimals with which the largest value shows `digits` significant digits.

    Args:
      values: Printed numbers; those that are not finite are ignored.
      digits: Significant digits of the largest.
      least: Smallest number of decimals.

    Returns:
      A number from `least` to 12.
    """
    finite = [abs(float(value)) for value in values if math.isfinite(value)]
    largest = max(finite, default=0.0)
    before = math.floor(math.log10(largest)) + 1 if largest else 1
    return min(max(digits - before, least, 0), 12)
