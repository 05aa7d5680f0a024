"""What a sweep found: every variant's numbers, mean and spread over seeds, the best, a plot a field.

Files: sweep.csv has a row a variant, summary.csv one a setting (its seeds together), report.html
the same with figures.
"""

import csv
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from lecture4.train import report as reports
from lecture4.train.config import UsageError
from lecture4.train.metric_writer import read
from lecture4.train.sweep import variants as sweep

# Metrics of which more is better; of all others less is.
RISING = ('accuracy', 'psnr', 'snr', 'ssim', 'bleu', 'precision', 'recall', 'average_precision')
MOST_METRICS = 5  # columns of the summary in the report; summary.csv has all


def place(directory: pathlib.Path, variant) -> pathlib.Path:
    """The directory of a variant."""
    return directory / 'variants' / sweep.name(variant)


def note_failure(where: pathlib.Path, error: Exception):
    """Leave the reason in the variant's directory; its next run removes it."""
    where.mkdir(parents=True, exist_ok=True)
    text = ' '.join(str(error).split()) or type(error).__name__
    (where / 'failed.txt').write_text(f'{text[:500]}\n')


def broken(variants, directory: pathlib.Path) -> dict[str, str]:
    """{name: reason} of the variants that have no result."""
    reasons = {}
    for variant in variants:
        where = place(directory, variant)
        if not (where / 'results.json').exists():
            note = where / 'failed.txt'
            reasons[sweep.name(variant)] = (
                note.read_text().strip() if note.exists() else 'not finished'
            )
    return reasons


def make(experiment, config, variants, directory: pathlib.Path) -> reports.Report:
    """Read the variants' results and write the tables, the figures and report.html."""
    if not directory.is_dir():
        raise UsageError(f'{directory} holds no sweep; run it first, or correct --workdir')
    missing = broken(variants, directory)
    fields = tuple(dict.fromkeys(name for variant in variants for name in variant))
    results, reported, rows_of = [], {}, {}
    for variant in variants:
        where, last = place(directory, variant), {}
        # A field that only other variants name has the value of the command line.
        full = {name: variant.get(name, getattr(config, name)) for name in fields}
        if sweep.name(variant) in missing:
            results.append(full)
            continue
        rows_of[sweep.name(variant)] = (full, read(where / 'metrics.jsonl'))
        for row in rows_of[sweep.name(variant)][1]:
            last.update(row)
        own = json.loads((where / 'results.json').read_text())['metrics']
        reported.update(own)
        results.append({**full, **last, **own})
    columns = tuple(dict.fromkeys(name for result in results for name in result))
    rows = tuple(tuple(_cell(result.get(name)) for name in columns) for result in results)
    _write_csv(directory / 'sweep.csv', columns, rows)
    swept = tuple(name for name in fields if name != 'seed')
    numbers = [name for name in columns if name not in fields and name != 'step']
    settings = summarise(results, swept, numbers)
    metric, rising = _deciding(config, reported, numbers)
    title = config.sweep or ' '.join(config.grid)
    summary, pictures = '', {}
    tables = [reports.Table(f'Sweep {title}', columns, rows, 'Values at the last step.')]
    if metric and swept:
        shown = [metric, *(name for name in reported if name != metric)][:MOST_METRICS]
        ranked = sorted(settings, key=lambda one: _rank(one[metric][0], rising))
        best = ranked[0]
        mean, spread, n = best[metric]
        words = ', '.join(f'{name} {_short(best[name])}' for name in swept)
        summary = (
            f'Best of {len(settings)} settings by {"largest" if rising else "smallest"} {metric}: '
            f'{words} with {mean:.4g}' + (f' ± {spread:.2g} over {n} seeds.' if n > 1 else '.')
        )
        tables.insert(0, _summary_table(ranked, swept, shown, metric))
        pictures = {
            f'{metric.replace("/", "_")}_against_{name}': reports.Picture(
                _plot(settings, swept, name, metric),
                f'{metric} against {name}: mean over seeds, bars of one standard deviation.',
            )
            for name in swept
            if len({str(one[name]) for one in settings}) > 1
        } | _learning(rows_of.values(), swept)
    if missing:
        told = '; '.join(f'{name}: {reason}' for name, reason in missing.items())
        summary += f' {len(missing)} of {len(variants)} variants have no result: {told}.'
    _write_csv(
        directory / 'summary.csv',
        (*swept, 'n', *(f'{name}{part}' for name in numbers for part in ('', '_sd'))),
        tuple(
            (
                *(one[name] for name in swept),
                one['n'],
                *(_cell(value) for name in numbers for value in one[name][:2]),
            )
            for one in settings
        ),
    )
    report = reports.Report(tables=tuple(tables), pictures=pictures, summary=summary.strip())
    name = f'{experiment.name.replace("_", " ")}: sweep {title}'
    reports.write(directory, report, title=name, about=experiment.about)
    return report


def summarise(results, swept, numbers) -> list[dict[str, Any]]:
    """One dict a setting: the swept fields but the seed, 'n', and metric -> (mean, sd, n).

    The standard deviation is over seeds, ddof 1, nan for one; variants without a result, and
    values that are not finite, are left out of both.
    """
    settings: dict[tuple, list[dict]] = {}
    for result in results:
        settings.setdefault(tuple(result[name] for name in swept), []).append(result)
    found = []
    for key, members in settings.items():
        one: dict[str, Any] = dict(zip(swept, key, strict=True))
        for name in numbers:
            values = [member.get(name) for member in members]
            finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
            mean = float(np.mean(finite)) if finite else math.nan
            spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
            one[name] = (mean, spread, len(finite))
        one['n'] = max((one[name][2] for name in numbers), default=0)
        found.append(one)
    return found


def _deciding(config, reported, numbers) -> tuple[str, bool]:
    """(metric, whether more of it is better) that says which setting is best; '' where none is."""
    metric = config.best or next(iter(reported), '')
    if metric and metric not in numbers:
        raise UsageError(f'--best {metric}: the metrics are {", ".join(numbers)}')
    return metric, any(word in metric.lower() for word in RISING)


def _rank(mean: float, rising: bool) -> float:
    if not math.isfinite(mean):
        return math.inf
    return -mean if rising else mean


def _summary_table(ranked, swept, shown, metric) -> reports.Table:
    rows = tuple(
        (
            *(_short(one[name]) for name in swept),
            one['n'],
            *(_spread(*one[name]) for name in shown),
        )
        for one in ranked
    )
    caption = (
        f'Mean ± standard deviation over seeds, best {metric} first; n runs in each. '
        'summary.csv has all metrics.'
    )
    return reports.Table('Settings', (*swept, 'n', *shown), rows, caption)


def _spread(mean, spread, n) -> str:
    if not n:
        return 'none'
    return f'{mean:.4g} ± {spread:.2g}' if n > 1 else f'{mean:.4g}'


def _short(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _cell(value):
    missing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return '' if missing else value


def _write_csv(path: pathlib.Path, columns, rows):
    temporary = path.with_name(path.name + '.tmp')
    with temporary.open('w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])
    os.replace(temporary, path)


def _learning(runs, swept) -> dict[str, reports.Picture]:
    """Metrics that were also evaluated, against the step: a panel a value of the first field, if few."""
    from lecture4.figures import style, variants

    drawn = []
    for variant, rows in runs:
        words = [f'{name} {_short(variant[name])}' for name in swept]
        panel = words.pop(0) if len(words) > 1 else ''
        drawn.append((panel, ', '.join(words), rows))
    n_panels, n_lines = (len({run[i] for run in drawn}) for i in (0, 1))
    if not drawn or n_panels > 3 or n_lines > len(style.COLOURS):
        return {}
    return {
        f'learning_{metric}': reports.Picture(
            variants.learning(drawn, metric),
            f'{metric} of every variant, dashed while training, solid where evaluated.',
        )
        for metric in variants.paired(drawn[0][2])
    }


def _plot(settings, swept, field: str, metric: str):
    """The metric against a field, a line for each setting of the others while they are few."""
    from lecture4.figures import style

    others = [name for name in swept if name != field]
    lines: dict[tuple, list] = {}
    for one in settings:
        key = tuple(one[name] for name in others)
        lines.setdefault(key, []).append((one[field], *one[metric][:2]))
    values = list(dict.fromkeys(one[field] for one in settings))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    many = len(lines) > len(style.COLOURS)
    with style.house():
        figure = style.figure(5.6, 3.4, layout='constrained')
        axes = figure.add_subplot()
        for key, points in lines.items():
            points = sorted(points) if numeric else points
            at = [x if numeric else values.index(x) for x, *_ in points]
            label = ', '.join(f'{n} {_short(v)}' for n, v in zip(others, key, strict=True))
            axes.errorbar(
                at,
                [mean for _, mean, _ in points],
                yerr=np.nan_to_num([spread for *_, spread in points]),
                marker='o',
                capsize=3,
                color=style.FAINT if many else None,
                label=label or None,
            )
        if not numeric:
            axes.set_xticks(range(len(values)), [str(value) for value in values])
        elif min(values) > 0 and max(values) > 30 * min(values):
            axes.set_xscale('log')
        axes.set_xlabel(field)
        axes.set_ylabel(metric)
        if others and not many:
            axes.legend()
    return figure
