"""The report of a sweep: metrics of every variant, mean and spread over seeds, the best setting, figures.

Files: sweep.csv has a row for each variant, summary.csv one for each setting (over its seeds), both with rates as
fractions; report.html shows the same with figures.
"""

import csv
import dataclasses
import logging
import math
import os
import pathlib
from collections.abc import Container, Iterable, Sequence
from typing import Any

from lecture4.train import report as reports
from lecture4.train import tables
from lecture4.train.cells import format_value
from lecture4.train.config import UsageError
from lecture4.train.metrics import Metric, find, label_of, metric_of, primary
from lecture4.train.sweep import drawings
from lecture4.train.sweep import variants as sweep
from lecture4.train.sweep.drawings import STD
from lecture4.train.sweep.results import (
    Result,
    Setting,
    failed_variants,
    field_columns,
    metric_keys,
    over_seeds,
    read_result,
    summarize,
    variant_dir,
    write_csvs,
)

LOG = logging.getLogger(__name__)
MOST_METRICS = 5  # columns of metrics in the summary's table; summary.csv has all
MOST_ROWS = 100  # rows of the table of variants in the report; sweep.csv has all
VARIANTS, LINK = (
    'Variants',
    'report',
)  # title of the table of variants; its entry with their addresses
ERROR = 'standard error'


def best_key(
    declared: Iterable[Metric],
    best: str = '',
    swept: Iterable[str] = (),
    measured: Container[str] | None = None,
) -> str:
    """The key by which a sweep ranks its settings: --best, the primary metric, or the first metric that can.

    A metric whose formula contains a swept field (a cost, and the weight of a penalty in it) differs between settings
      by definition: --best may not name it, and if it is the primary metric, settings are ranked by the first
        declared metric with a direction whose formula contains no swept field.

    Args:
      declared: The experiment's metrics.
      best: The option --best.
      swept: Names of the swept fields.
      measured: Keys of the variants' results; None before there are any.

    Raises:
      UsageError: The key is not declared, its metric has no direction or contains a swept field; the
        message names those that can rank.
    """
    declared, swept = tuple(declared), set(swept)
    key = best or primary(declared).name
    metric = find(declared, key)
    able = [m.name for m in declared if m.better and not swept.intersection(m.depends_on)]
    contained = sorted(swept.intersection(metric.depends_on)) if metric else []
    if metric is not None and metric.better and not contained:
        return key
    known = [name for name in able if measured is None or name in measured]
    if contained and not best and known:
        return known[0]
    which = f'--best {key}: the metric' if best else f'the primary metric {key}'
    reason = "has no direction (better is neither 'higher' nor 'lower')"
    if contained:
        reason = f'contains {", ".join(contained)}, which the sweep varies'
    if metric is None:
        which, reason = f'--best {key}:', 'no such metric is declared'
    usable = ', '.join(able)
    fix = f'choose one of {usable} with --best' if usable else 'declare the direction of one'
    raise UsageError(f'{which} {reason}; {fix}')


def make(experiment, config, variants: Sequence[dict[str, Any]], directory: pathlib.Path):
    """Read the variants' results and write the tables, the figures and report.html.

    Args:
      experiment: Its `metrics`, `name` and `about` are used.
      config: The config of the whole sweep.
      variants: The fields of each variant.
      directory: The sweep's directory.

    Returns:
      The Report.

    Raises:
      UsageError: The directory contains no sweep, or the settings cannot be ranked by --best.
    """
    if not directory.is_dir():
        raise UsageError(f'{directory} contains no sweep; run it first, or correct --workdir')
    declared = experiment.metrics
    missing = failed_variants(variants, directory)
    fields = tuple(dict.fromkeys(name for variant in variants for name in variant))
    # A field that a variant does not name has the value of the command line.
    best_key(declared, config.best, fields)
    full = [{n: variant.get(n, getattr(config, n)) for n in fields} for variant in variants]
    results = [
        Result(values, {}, (), [], [])
        if sweep.name(variant) in missing
        else read_result(values, variant_dir(directory, variant))
        for values, variant in zip(full, variants, strict=True)
    ]
    swept = tuple(name for name in fields if name != 'seed')
    settings = summarize(results, swept)
    keys = metric_keys(results, declared)
    key = best_key(declared, config.best, fields, keys if keys else None)
    if any(result.values for result in results) and key not in keys:
        usable = [name for name in keys if (m := find(declared, name)) is not None and m.better]
        raise UsageError(f'--best {key}: no variant reports it; choose one of {", ".join(usable)}')
    kept = keep_larger_table(directory, len(results))
    write_csvs(directory, results, settings, swept, keys)
    report = _ranked(results, settings, swept, key, keys, declared)
    links = [str(variant_dir(pathlib.Path(), v) / 'report.html') for v in variants]
    report = _linked(report, links, directory)
    contained = sorted({*swept}.intersection(primary(declared).depends_on))
    if contained and not config.best:
        added = (
            f'The primary metric, {primary(declared).label}, contains the swept '
            f'{", ".join(contained)}, so settings are not ranked by it.'
        )
        report = report._replace(summary=f'{report.summary} {added}')
    if kept:
        report = report._replace(summary=f'{report.summary} {kept}')
    if missing:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in missing.items())
        without = f'{len(missing)} of {len(variants)} variants have no result: {reasons}.'
        report = report._replace(summary=f'{report.summary} {without}'.strip())
    title = config.sweep or ' '.join(config.grid) or 'seeds'
    name = f'{reports.title_of(experiment.about, experiment.name)}: sweep {title}'
    reports.write(directory, report, declared, title=name, about=experiment.about)
    return report


def keep_larger_table(directory: pathlib.Path, n_variants: int) -> str:
    """Move the tables of a directory aside if they have more variants than the new ones.

    Args:
      directory: The sweep's directory.
      n_variants: Number of variants of the new tables.

    Returns:
      A sentence that says where the old tables are; '' if nothing was moved.
    """
    try:
        with (directory / 'sweep.csv').open(newline='') as file:
            n_previous = sum(1 for _ in csv.reader(file)) - 1
    except OSError:
        return ''
    if n_previous <= n_variants:
        return ''
    place = directory / 'tables' / f'{n_previous}-variants'
    place.mkdir(parents=True, exist_ok=True)
    for name in ('sweep.csv', 'summary.csv', 'results.json', 'report.html'):
        if (directory / name).exists():
            os.replace(directory / name, place / name)
    sentence = f'The previous tables, of {n_previous} variants, are now in {place}.'
    LOG.warning('%s', sentence)
    return sentence


def _linked(report: reports.Report, links: list[str], directory: pathlib.Path) -> reports.Report:
    """The report with links from the rows of its table of variants to their reports, where these exist."""

    def add(table: tables.Table) -> tables.Table:
        if table.title != VARIANTS:
            return table
        records = [
            record | ({LINK: link} if (directory / link).exists() else {})
            for record, link in zip(table.records, links, strict=False)
        ]
        return dataclasses.replace(table, records=records, link=LINK)

    return report._replace(tables=tuple(map(add, report.tables)))


def rank(settings: Iterable[Setting], key: str, metric: Metric) -> list[Setting]:
    """Settings ordered by their mean over seeds, the best first; those without a finite value last."""
    sign = -1.0 if metric.better == 'higher' else 1.0

    def order(setting: Setting) -> float:
        mean = setting.mean(key)
        return sign * mean if math.isfinite(mean) else math.inf

    return sorted(settings, key=order)


def _ranked(results, settings, swept, key, keys, declared) -> reports.Report:
    """The report of a sweep whose settings can be ranked by a metric."""
    metric = metric_of(declared, key)
    ranked = rank(settings, key, metric)
    reported = [k for k in keys if any(k in result.reported for result in results)]
    known = [k for k in reported if find(declared, k) is not None]
    values = {primary(declared).name: math.nan} | {k: ranked[0].mean(k) for k in known}
    common = [k for k in known if all(setting.draws(k).size for setting in settings)]
    shown = [key, *(k for k in common if k != key)][:MOST_METRICS]
    direction = f'{metric.better} is better'
    report_tables = _crossed_table(settings, swept, key, known, declared)
    report_tables.append(
        _settings_table(ranked, swept, shown, f'{label_of(declared, key)}, {direction}')
    )
    summary = f'No setting has a finite {label_of(declared, key)}.'
    if n := ranked[0].draws(key).size:
        best = ranked[0].draws(key)
        value = format_value(best, metric, STD if swept else ERROR)
        over = f' (mean ± {STD if swept else ERROR}, {n} seeds)' if n > 1 else ''
        words = ', '.join(f'{name} {drawings.short(ranked[0].fields[name])}' for name in swept)
        summary = f'{drawings.sentence(label_of(declared, key))}: {value}{over}.'
        if swept:
            by = f'{label_of(declared, key)} ({direction})'
            summary = f'Best of {len(settings)} settings by {by}: {words}, with {value}{over}.'
    fields = tuple(results[0].fields)
    if swept:
        report_tables.append(_variants_table(results, fields, shown, keys))
        figures = drawings.against(settings, swept, key, metric, declared)
        figures |= drawings.rows_against(settings, swept, reported, declared)
        figures |= drawings.learning(results, swept, declared)
    else:
        report_tables += over_seeds(
            [result.tables for result in results if result.tables], declared
        )
        report_tables.append(_variants_table(results, fields, shown, keys))
        figures = drawings.learning(results, swept, declared)
    return reports.Report(values, tuple(report_tables), figures, summary)


def _settings_table(ranked, swept, shown, ranking: str) -> tables.Table:
    spread = STD if swept else ERROR
    columns = field_columns(swept, shown)
    records = []
    for setting in ranked:
        record = {columns[name]: setting.fields[name] for name in swept}
        record['runs'] = setting.runs(shown)
        records.append(record | {key: setting.draws(key) for key in shown})
    caption = 'Values are means over seeds; summary.csv has all metrics.'
    if swept:
        caption = f'Ranked by {ranking}. {caption}'
    return tables.Table(
        'Settings' if swept else 'All seeds',
        records,
        tuple(columns.values()) or ('runs',),
        caption=caption,
        spread=spread,
        in_results=False,
    )


def _crossed_table(settings, swept, key, reported, declared) -> list[tables.Table]:
    """Table of a sweep over two fields: a row for each value of one, a column for each value of the other.

    Published values that the experiment reports appear next to the metric.
    """
    several = [n for n in swept if len({drawings.short(s.fields[n]) for s in settings}) > 1]
    if len(swept) != 2 or len(several) != 2:
        return []
    published = next((k for k in reported if k.startswith(tables.PUBLISHED)), '')
    columns = field_columns(swept, [key])
    row, across = (columns[name] for name in swept)
    records = []
    for setting in settings:
        record = {columns[name]: drawings.short(setting.fields[name]) for name in swept}
        record |= {key: setting.draws(key)}
        if published and setting.draws(published).size:
            record |= {tables.PUBLISHED: setting.mean(published)}
        records.append(record)
    title = f'{drawings.sentence(label_of(declared, key))} by {tables.words(row)} and {tables.words(across)}'
    return [tables.Table(title, records, (row,), pivot=across, in_results=False)]


def _variants_table(results, fields, shown, keys) -> tables.Table:
    columns = field_columns(fields, keys)
    records = []
    for result in results[:MOST_ROWS]:
        record = {columns[name]: result.fields[name] for name in fields}
        records.append(record | {key: result.values.get(key) for key in shown})
    cut = f'The first {MOST_ROWS} of {len(results)}. ' if len(results) > MOST_ROWS else ''
    return tables.Table(
        VARIANTS,
        records,
        tuple(columns.values()),
        caption=f'{cut}Values at the last step; sweep.csv has all metrics.',
        in_results=False,
    )
