"""The results of a sweep, by variant and by setting (over its seeds), also as CSV."""

import csv
import json
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lecture4.train import tables
from lecture4.train.metric_writer import read
from lecture4.train.metrics import Metric, find, name_of
from lecture4.train.sweep import variants as sweep


class Result(NamedTuple):
    """A finished variant.

    Attributes:
      fields: The sweep's fields with their values.
      values: Key -> number: the last value in metrics.jsonl, overridden by results.json.
      reported: Keys of results.json.
      rows: The rows of metrics.jsonl.
      tables: The tables of results.json.
    """

    fields: dict[str, Any]
    values: dict[str, float]
    reported: tuple[str, ...]
    rows: list[dict[str, Any]]
    tables: list[dict[str, Any]]


class Setting(NamedTuple):
    """The variants that differ only in the seed.

    Attributes:
      fields: The swept fields except the seed.
      values: Key -> finite values [n], one for each seed that has one.
    """

    fields: dict[str, Any]
    values: dict[str, np.ndarray]

    def draws(self, key: str) -> np.ndarray:
        """The finite values of a key over seeds, [n]; n may be 0."""
        return self.values.get(key, np.empty(0))

    def mean(self, key: str) -> float:
        """Mean over seeds, nan where no seed has a finite value."""
        return float(self.draws(key).mean()) if self.draws(key).size else math.nan

    def std(self, key: str) -> float:
        """Standard deviation over seeds (ddof 1), nan for fewer than two."""
        return float(self.draws(key).std(ddof=1)) if self.draws(key).size > 1 else math.nan

    def runs(self, keys: Iterable[str]) -> int:
        """The largest number of seeds with a finite value of one key."""
        return max((self.draws(key).size for key in keys), default=0)


def variant_dir(directory: pathlib.Path, variant: dict[str, Any]) -> pathlib.Path:
    """The run directory of a variant."""
    return directory / 'variants' / sweep.name(variant)


def note_failure(where: pathlib.Path, error: Exception) -> None:
    """Write the reason of a failure into the variant's directory; the next run of the variant removes it."""
    where.mkdir(parents=True, exist_ok=True)
    text = ' '.join(str(error).split()) or type(error).__name__
    (where / 'failed.txt').write_text(f'{text[:500]}\n')


def failed_variants(variants: Iterable[dict[str, Any]], directory: pathlib.Path) -> dict[str, str]:
    """{name: reason} of the variants that have no result."""
    reasons = {}
    for variant in variants:
        where = variant_dir(directory, variant)
        if not (where / 'results.json').exists():
            note = where / 'failed.txt'
            reasons[sweep.name(variant)] = (
                note.read_text().strip() if note.exists() else 'not finished'
            )
    return reasons


def read_result(fields: dict[str, Any], where: pathlib.Path) -> Result:
    """The result of a finished variant in its run directory, with the fields it was run with."""
    rows, last = read(where / 'metrics.jsonl'), {}
    for row in rows:
        last.update(row)
    results = json.loads((where / 'results.json').read_text())
    final = results['metrics']
    numbers = {
        key: float(value) if value is not None else math.nan
        for key, value in {**last, **final}.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }
    return Result(fields, numbers, tuple(final), rows, results['tables'])


def summarize(results: Iterable[Result], swept: Sequence[str]) -> list[Setting]:
    """One Setting for each combination of the swept fields' values, in order of appearance.

    Variants without a result, and values that are not finite, are left out.
    """
    grouped: dict[tuple, list[Result]] = {}
    for result in results:
        grouped.setdefault(tuple(result.fields[name] for name in swept), []).append(result)
    keys = dict.fromkeys(key for result in results for key in result.values)
    settings = []
    for at, members in grouped.items():
        values = {}
        for key in keys:
            each = [member.values.get(key, math.nan) for member in members]
            values[key] = np.array([value for value in each if math.isfinite(value)])
        settings.append(Setting(dict(zip(swept, at, strict=True)), values))
    return settings


def metric_keys(results: Iterable[Result], declared: Sequence[Metric]) -> list[str]:
    """Keys of metrics: those of results.json first, those without qualifiers first, in the declared order."""
    names = [metric.name for metric in declared]
    reported = {key for result in results for key in result.reported}
    keys = dict.fromkeys(k for r in results for k in r.values if k not in ('step', 'seconds'))

    def order(key):
        place = names.index(name_of(key)) if name_of(key) in names else len(names)
        return key not in reported, '/' in key, place

    return sorted(keys, key=order)


def over_seeds(runs: Sequence[Sequence[dict]], declared: Sequence[Metric]) -> list[tables.Table]:
    """The tables of the results.json of several seeds combined: each metric becomes its values over seeds.

    Records are matched by the values of index and pivot; all other entries are those of the first
    seed that has the record. A table that a seed lacks is left out.
    """
    result = []
    for same in zip(*runs, strict=False):
        first = same[0]
        names = [name for name in (*first['index'], first['pivot']) if name]
        merged: dict[str, dict[str, Any]] = {}
        for table in same:
            for record in table['records']:
                combined = merged.setdefault(repr([record.get(name) for name in names]), {})
                for name, value in record.items():
                    if name in names or find(declared, name) is None or isinstance(value, str):
                        combined.setdefault(name, value)
                    elif value is not None:
                        combined.setdefault(name, []).append(np.mean(value))
        options = {name: first[name] for name in ('title', 'caption', 'pivot')}
        result.append(
            tables.Table(
                records=list(merged.values()),
                index=tuple(first['index']),
                columns=tuple(first['columns']),
                spread='standard error',
                **options,
            )
        )
    return result


def field_columns(fields: Sequence[str], keys: Iterable[str]) -> dict[str, str]:
    """Field -> name of its column: written as an option where a metric has the same name."""
    taken = {*keys, 'runs'}
    return {name: f'--{name}' if name in taken else name for name in fields}


def write_csvs(
    directory: pathlib.Path,
    results: Sequence[Result],
    settings: Sequence[Setting],
    swept: Sequence[str],
    keys: Sequence[str],
) -> None:
    """Write sweep.csv, a row for each variant, and summary.csv, a row for each setting."""
    fields = tuple(results[0].fields)
    columns = field_columns(fields, keys)
    others = ('step', 'seconds')
    _write_csv(
        directory / 'sweep.csv',
        (*columns.values(), *others, *keys),
        [
            (*result.fields.values(), *(_cell(result.values.get(key)) for key in (*others, *keys)))
            for result in results
        ],
    )
    _write_csv(
        directory / 'summary.csv',
        (
            *(columns[name] for name in swept),
            'runs',
            *(f'{key}{part}' for key in keys for part in ('', '_std')),
        ),
        [
            (
                *setting.fields.values(),
                setting.runs(keys),
                *(_cell(v) for key in keys for v in (setting.mean(key), setting.std(key))),
            )
            for setting in settings
        ],
    )


def _cell(value: Any) -> Any:
    missing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return '' if missing else value


def _write_csv(path: pathlib.Path, columns, rows):
    temporary = path.with_name(path.name + '.tmp')
    with temporary.open('w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])
    os.replace(temporary, path)
