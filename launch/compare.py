"""Compares runs: the options that differ, their curves in one figure each, and their final metrics.

    python -m launch.compare runs/deep-a runs/deep-b
    python -m launch.compare runs/deep-seeds/variants/*
    python -m launch.compare runs/a runs/b runs/c --metrics test_error loss --workdir runs/compare-abc

Nothing is trained. The tables are printed, and written to report.html with the figures. Runs that are not
finished are compared by the last of their rows in metrics.jsonl.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launch import command, runs

if TYPE_CHECKING:
    from lecture4.train import Figure, Metric, Table

MOST_FIGURES = 6
MISSING = '\u2013'


def main(argv: list[str]) -> int:
    """Parse the options, print the tables and write the report.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: A directory contains no run, the runs have no metric in common, or the report cannot be written.
    """
    parser = command.parser('launch.compare', __doc__ or '', dry_run=False)
    add = parser.add_argument
    add('runs', nargs='+', help='Run directories, at least two.', metavar='RUN')
    add('--metrics', nargs='+', default=[], help='Metrics to compare. Default: all.')
    add('--workdir', default='runs/compare', help='Directory for the report. Default: %(default)s.')
    options = parser.parse_args(argv)
    if len(options.runs) < 2:
        raise command.LaunchError('expected at least two runs: RUN RUN ...')
    from lecture4.train import Report
    from lecture4.train import report as reports

    compared = [runs.read(path) for path in options.runs]
    names = runs.names(compared)
    metrics = common_metrics(compared, options.metrics)
    tables = (differing_options(compared, names), final_metrics(compared, names, metrics))
    values = {metrics[0].name: best(compared, metrics[0])}
    summary = f'{len(names)} runs: {", ".join(names)}.'
    report = Report(values, tables, overlaid(compared, names, metrics), summary)
    directory = pathlib.Path(options.workdir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        reports.write(directory, report, metrics, title='Comparison of runs')
    except OSError as error:
        raise command.LaunchError(
            f'cannot write to {directory}: {error.strerror}; choose another --workdir'
        ) from None
    for table in tables:
        print(reports.text(table, metrics))
    print(f'report: {directory / "report.html"}')
    return 0


def common_metrics(compared: Sequence[runs.Run], only: Sequence[str] = ()) -> 'list[Metric]':
    """The metrics to compare: declared by one of the runs and measured in at least two, the primary first.

    Args:
      compared: The runs.
      only: Names of metrics; empty for all.

    Raises:
      LaunchError: There is no such metric, or one of `only` is not in two runs.
    """
    from lecture4.train import Metric
    from lecture4.train.metrics import EVAL

    known: dict[str, Metric] = {}
    for run in compared:
        for metric in runs.declared(run):
            known.setdefault(metric.name, metric)
    counts: dict[str, int] = {}
    for run in compared:
        for name in {key.removeprefix(EVAL).partition('/')[0] for key in run.last()}:
            counts[name] = counts.get(name, 0) + 1
    shared = [name for name, count in counts.items() if count > 1]
    if missing := [name for name in only if name not in shared]:
        raise command.LaunchError(
            f'--metrics {missing[0]}: fewer than two runs have it; choose from {", ".join(sorted(shared))}'
        )
    order = list(known)
    chosen = sorted(only or shared, key=lambda n: order.index(n) if n in order else len(order))
    metrics = [known.get(name) or Metric(name) for name in chosen]
    metrics.sort(key=lambda metric: not metric.primary)
    if not metrics:
        raise command.LaunchError('no metric is measured in two of the runs; nothing to compare')
    return [dataclasses.replace(m, primary=i == 0) for i, m in enumerate(metrics)]


def differing_options(compared: Sequence[runs.Run], names: Sequence[str]) -> 'Table':
    """A table of the config's fields that are not the same in all runs, a column for each run."""
    from lecture4.train import Table

    fields = dict.fromkeys(name for run in compared for name in run.config)
    records = []
    modules = [run.module for run in compared]
    if len(set(modules)) > 1:
        records.append({'option': 'experiment', **dict(zip(names, modules, strict=True))})
    for field in fields:
        values = [run.config.get(field, MISSING) for run in compared]
        if len(set(map(repr, values))) > 1:
            records.append(
                {'option': f'--{field}', **dict(zip(names, map(_text, values), strict=True))}
            )
    commits = {run.environment.get('commit') for run in compared}
    caption = (
        'All other options are equal.'
        if len(commits) == 1
        else 'All other options are equal; the commits differ.'
    )
    if not records:
        records = [{'option': 'none', **dict.fromkeys(names, MISSING)}]
    return Table('Options that differ', records, ('option',), caption=caption, in_results=False)


def final_metrics(
    compared: Sequence[runs.Run], names: Sequence[str], metrics: 'Sequence[Metric]'
) -> 'Table':
    """A table of the last values of the metrics, a column for each run."""
    from lecture4.train import Table
    from lecture4.train.cells import numbers
    from lecture4.train.metrics import name_of, title_of

    by_name = {metric.name: metric for metric in metrics}
    last = [run.last() for run in compared]
    steps = [max((row['step'] for row in run.rows), default=0) for run in compared]
    records: list[dict[str, Any]] = [
        {'metric': 'step', **{name: str(step) for name, step in zip(names, steps, strict=True)}}
    ]
    for key in dict.fromkeys(key for values in last for key in values):
        metric = by_name.get(name_of(key))
        if metric is not None:
            cells = numbers([values.get(key) for values in last], metric, '')
            title = title_of(metrics, key)
            records.append({'metric': title, **dict(zip(names, cells, strict=True))})
    order = [title_of(metrics, metric.name) for metric in metrics]
    records[1:] = sorted(
        records[1:], key=lambda r: order.index(r['metric']) if r['metric'] in order else len(order)
    )
    caption = 'The last value of each metric of each run.'
    return Table('Final metrics', records, ('metric',), caption=caption, in_results=False)


def overlaid(
    compared: Sequence[runs.Run], names: Sequence[str], metrics: 'Sequence[Metric]'
) -> 'dict[str, Figure]':
    """A figure for each metric that was measured during training, with a curve for each run."""
    from lecture4.figures import variants
    from lecture4.train import Figure
    from lecture4.train.metrics import EVAL

    figures = {}
    for metric in metrics:
        curves = [
            ('', name, run.rows)
            for name, run in zip(names, compared, strict=True)
            if any(
                _finite(row.get(key))
                for row in run.rows
                for key in (metric.name, EVAL + metric.name)
            )
        ]
        if len(curves) > 1 and len(figures) < MOST_FIGURES:
            percent = metric.unit == 'fraction'
            label = metric.label if percent else metric.title
            figure = variants.learning_curves(
                curves, metric.name, label=label, percent=percent, size=(6.0, 3.3)
            )
            caption = f'{metric.label[:1].upper()}{metric.label[1:]} during training.'
            figures[f'learning_{metric.name}'] = Figure(figure, caption)
    return figures


def best(compared: Sequence[runs.Run], metric: 'Metric') -> float:
    """The best final value of a metric; that of the first run if neither direction is better."""
    values = [v for run in compared if _finite(v := run.last().get(metric.name))]
    if not values:
        return math.nan
    return {'higher': max, 'lower': min}.get(metric.better, lambda v: v[0])(values)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(value: Any) -> str:
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == '__main__':
    command.main('launch.compare', main)
