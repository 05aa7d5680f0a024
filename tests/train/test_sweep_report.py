"""A sweep's report ranks settings by the declared direction of a metric, and shows all variants."""

import csv
import dataclasses
import json
import types

import numpy as np
import pytest

from lecture4.train import cells, tables
from lecture4.train.config import UsageError
from lecture4.train.metrics import Metric
from lecture4.train.sweep import report as sweep_report
from lecture4.train.sweep import results
from lecture4.train.sweep import variants as sweep

METRICS = (
    Metric('elbo', unit='nats', better='higher', label='ELBO', primary=True),
    Metric('active_units', unit='count'),
    Metric('good_fits', unit='fraction', better='higher', label='good fits'),
    Metric('psnr', unit='dB', better='higher', label='PSNR'),
    Metric('test_accuracy', unit='fraction', better='higher', label='test accuracy'),
    Metric('error', better='lower'),
)


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.5
    kind: str = 'a'
    seed: int = 0
    error: float = 0.0
    sweep: str = 'named'
    grid: tuple = ()
    best: str = ''


def experiment(metrics=METRICS):
    return types.SimpleNamespace(name='toy_model', about='A toy.', metrics=metrics)


def write_variant(directory, variant, metrics, rows=(), records=()):
    where = directory / 'variants' / sweep.name(variant)
    where.mkdir(parents=True)
    (where / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    table = {
        'title': 'Methods', 'index': ['method'], 'pivot': '', 'columns': [], 'caption': 'Digits.',
        'records': list(records),
    }  # fmt: skip
    content = {'metrics': metrics, 'tables': [table] if records else []}
    (where / 'results.json').write_text(json.dumps(content))


def make(directory, variants, config=None, metrics=METRICS):
    return sweep_report.make(experiment(metrics), config or Config(), variants, directory)


def two_settings(directory, *reported, **options):
    """Variants rate=1 and rate=2 with the given metrics."""
    variants = sweep.grid(rate=(1.0, 2.0))
    for variant, metrics in zip(variants, reported, strict=True):
        write_variant(directory, variant, metrics, **options)
    return variants


def primary(name):
    """The declarations with another primary metric."""
    return tuple(dataclasses.replace(metric, primary=metric.name == name) for metric in METRICS)


@pytest.mark.parametrize(
    ('name', 'first', 'second', 'value'),
    [
        ('elbo', -33.6, -27.0, '-27.00 nats'),
        ('psnr', 22.5, 28.25, '28.25 dB'),
        ('good_fits', 0.25, 0.5, '50.0 %'),
        ('test_accuracy', 0.08, 0.114, '11.4 %'),
        ('error', 3.0, 2.0, '2'),
    ],
)
def test_the_best_is_chosen_by_the_declared_direction(tmp_path, name, first, second, value):
    variants = two_settings(tmp_path, {name: first}, {name: second})
    summary = make(tmp_path, variants, metrics=primary(name)).summary
    assert f': rate 2, with {value}.' in summary, summary
    assert 'Best of 2 settings by' in summary


def test_the_primary_metric_decides_wherever_its_key_stands(tmp_path):
    """What passes through jit comes back with sorted keys: the first reported may be any."""
    variants = two_settings(
        tmp_path, {'active_units': 2.0, 'elbo': -33.6}, {'active_units': 9.0, 'elbo': -27.0}
    )
    assert ': rate 2, with' in make(tmp_path, variants).summary


def test_top_1_of_crops_is_ranked_as_an_accuracy(tmp_path):
    reported = ({'test_accuracy': v, 'test_accuracy/10': 1 - v} for v in (0.08, 0.114))
    variants = two_settings(tmp_path, *reported)
    for key, best in (('test_accuracy', '2'), ('test_accuracy/10', '1')):
        assert f': rate {best}, with' in make(tmp_path, variants, Config(best=key)).summary


def test_a_metric_without_direction_is_refused(tmp_path):
    variants = two_settings(tmp_path, {'active_units': 2.0}, {'active_units': 9.0})
    usable = 'elbo, good_fits, psnr, test_accuracy, error'
    with pytest.raises(UsageError) as caught:
        make(tmp_path, variants, Config(best='active_units'))
    assert 'active_units: the metric has no direction' in str(caught.value)
    assert f'choose one of {usable} with --best' in str(caught.value)
    with pytest.raises(UsageError, match='the primary metric active_units has no direction'):
        make(tmp_path, variants, metrics=primary('active_units'))
    with pytest.raises(UsageError, match=f'--best elbow: no such metric.* choose one of {usable}'):
        make(tmp_path, variants, Config(best='elbow'))


def test_a_key_that_no_variant_has_is_refused(tmp_path):
    variants = two_settings(tmp_path, {'elbo': 1.0, 'psnr/10': 2.0}, {'elbo': 2.0, 'psnr/10': 3.0})
    with pytest.raises(
        UsageError, match='--best psnr: no variant reports it; choose one of elbo, psnr/10'
    ):
        make(tmp_path, variants, Config(best='psnr'))
    assert 'PSNR, 10 (higher is better)' in make(tmp_path, variants, Config(best='psnr/10')).summary


def test_evaluations_during_training_can_decide(tmp_path):
    for variant, last in zip(variants := sweep.grid(rate=(1.0, 2.0)), (3.0, 2.0), strict=True):
        rows = [{'step': 1, 'eval/error': 1.0}, {'step': 2, 'eval/error': last}]
        write_variant(tmp_path, variant, {'elbo': -last}, rows)
    report = make(tmp_path, variants, Config(best='eval/error'))
    assert 'by error (evaluation) (lower is better): rate 2, with 2.' in report.summary


def seeds(directory, values):
    """Variants rate x seed with values {rate: one for each seed} of the ELBO."""
    variants = sweep.grid(rate=tuple(values), seed=(0, 1, 2))
    for variant in variants:
        value = values[variant['rate']][variant['seed']]
        write_variant(directory, variant, {'elbo': value, 'good_fits': 0.5})
    return variants


def test_seeds_of_a_setting_are_averaged(tmp_path):
    values = {1.0: (-5.0, -4.0, -3.0), 2.0: (-3.0, -3.5, -1.0), 3.0: (-9.0, None, None)}
    report = make(tmp_path, seeds(tmp_path, values))
    spread = np.std(values[2.0], ddof=1)
    assert f'with -2.500 ± {spread:.3f} nats (mean ± standard deviation, 3 seeds)' in report.summary
    columns = {made.title: made.cells for made in tables.layout(report.tables[0], METRICS)}
    assert columns['rate'] == ['2', '1', '3']  # the best first
    assert columns['ELBO (nats)'] == [f'-2.500 ± {spread:.3f}', '-4.000 ± 1.000', '-9.000']
    assert columns['good fits (%)'][0] == '50.0 ± 0.0'
    with (tmp_path / 'summary.csv').open() as file:
        rows = {float(row['rate']): row for row in csv.DictReader(file)}
    assert float(rows[2.0]['elbo']) == -2.5 and float(rows[2.0]['elbo_std']) == pytest.approx(
        spread
    )
    assert rows[3.0]['elbo_std'] == '' and rows[3.0]['good_fits'] == '0.5'
    made = json.loads((tmp_path / 'results.json').read_text())
    assert made['primary'] == 'elbo' and made['metrics'] == {'elbo': -2.5, 'good_fits': 0.5}


def test_a_setting_without_finite_values_is_last(tmp_path):
    for name, values in (('elbo', (None, -9.0)), ('error', (None, 9.0))):
        variants = two_settings(tmp_path / name, *({name: value} for value in values))
        report = make(tmp_path / name, variants, metrics=primary(name))
        assert ': rate 2, with' in report.summary
        shown = [made.cells for made in tables.layout(report.tables[0], primary(name))]
        assert shown[0] == ['2', '1'] and shown[2][1] == cells.MISSING


def test_seeds_alone_give_the_experiments_tables_with_errors(tmp_path):
    variants = sweep.grid(seed=(0, 1))
    for variant, shift in zip(variants, (0.0, 0.25), strict=True):
        records = [
            {
                'method': 'PCA',
                'test_accuracy': [0.5 + shift, 0.7 + shift],
                'published': 'about 0.6',
            },
            {'method': f'seed {shift}', 'psnr': 20.0},
        ]
        write_variant(tmp_path, variant, {'elbo': -1.0 - shift}, records=records)
    report = make(tmp_path, variants)
    assert report.summary == 'ELBO: -1.125 ± 0.125 nats (mean ± standard error, 2 seeds).'
    (table,) = [table for table in report.tables if table.title == 'Methods']
    columns = {made.title: made.cells for made in tables.layout(table, METRICS)}
    assert columns['test accuracy (%)'][0] == '72.5 ± 12.5'
    assert columns['published'][0] == 'about 0.6'
    assert columns['method'] == ['PCA', 'seed 0.0', 'seed 0.25']
    made = json.loads((tmp_path / 'results.json').read_text())['metrics']
    assert made['test_accuracy/PCA'] == pytest.approx(0.725)


def test_a_field_and_a_metric_of_one_name_stay_apart(tmp_path):
    variants = sweep.grid(error=(1.0, 2.0))
    for variant in variants:
        write_variant(tmp_path, variant, {'elbo': variant['error'], 'error': 7.0})
    report = make(tmp_path, variants)
    assert ': error 2, with 2.000 nats' in report.summary
    with (tmp_path / 'sweep.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['--error'], row['error']) for row in rows] == [('1.0', '7.0'), ('2.0', '7.0')]


def test_failed_variants_are_named_and_the_others_ranked(tmp_path):
    variants = sweep.grid(rate=(1.0, 2.0, 3.0))
    for variant in variants[:2]:
        write_variant(tmp_path, variant, {'elbo': -variant['rate']})
    failed = results.variant_dir(tmp_path, variants[2])
    results.note_failure(failed, ValueError('out of\nmemory'))
    summary = make(tmp_path, variants).summary
    assert ': rate 1, with' in summary
    assert '1 of 3 variants have no result: rate=3.0: out of memory.' in summary
    assert results.failed_variants(variants, tmp_path) == {'rate=3.0': 'out of memory'}


def test_a_sweep_without_any_result_has_a_report(tmp_path):
    variants = sweep.grid(rate=(1.0, 2.0))
    report = make(tmp_path, variants)
    assert report.summary.startswith('No setting has a finite ELBO. 2 of 2 variants have no result')
    assert (tmp_path / 'report.html').exists()
    with pytest.raises(UsageError, match='contains no sweep'):
        make(tmp_path / 'none', variants)


def test_figures_show_percent_over_each_swept_field(tmp_path):
    variants = sweep.grid(rate=(0.01, 1.0), kind=('a', 'b'))
    for i, variant in enumerate(variants):
        rows = [{'step': n, 'good_fits': 0.1 * n, 'eval/good_fits': 0.1 * n} for n in range(3)]
        write_variant(tmp_path, variant, {'good_fits': 0.1 * (i + 1)}, rows)
    report = make(tmp_path, variants, metrics=primary('good_fits'))
    assert list(report.figures) == [
        'good_fits_against_rate', 'good_fits_against_kind', 'learning_good_fits'
    ]  # fmt: skip
    (axes,) = report.figures['good_fits_against_rate'].figure.axes
    assert axes.get_xscale() == 'log' and axes.get_ylabel() == 'good fits'
    lines = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert lines == [pytest.approx([0.1, 0.3]), pytest.approx([0.2, 0.4])]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['kind a', 'kind b']
    assert axes.yaxis.get_major_formatter()(0.5, 0) == '50%'
    assert (tmp_path / 'figures/learning_good_fits.png').exists()


def test_every_row_of_a_table_is_a_line_over_a_field_of_numbers(tmp_path):
    variants = sweep.grid(rate=(1.0, 10.0, 100.0))
    for i, variant in enumerate(variants):
        rows = {f'good_fits/layer_{n}/{s}': 0.1 * (n + i) for s in ('a', 'b') for n in (1, 2)}
        write_variant(tmp_path, variant, {'elbo': 1.0, 'psnr/one': 2.0} | rows)
    report = make(tmp_path, variants)
    assert list(report.figures) == ['elbo_against_rate', 'good_fits_rows_against_rate']
    (axes,) = report.figures['good_fits_rows_against_rate'].figure.axes
    lines = [container.lines[0] for container in axes.containers]
    names = [container.get_label() for container in axes.containers]
    assert names == ['layer 1, a', 'layer 2, a', 'layer 1, b', 'layer 2, b']
    assert lines[1].get_ydata() == pytest.approx([0.2, 0.3, 0.4])
    assert [line.get_linestyle() for line in lines] == ['-', '-', '--', '--']
    assert lines[0].get_color() == lines[2].get_color() != lines[1].get_color()
    two = make(tmp_path, variants[:2]).figures
    assert list(two) == ['elbo_against_rate']


def test_two_swept_fields_are_rows_and_columns_with_published_values(tmp_path):
    metrics = (*METRICS, Metric('published_accuracy', unit='fraction'))
    metrics = tuple(dataclasses.replace(m, primary=m.name == 'test_accuracy') for m in metrics)
    variants = sweep.grid(kind=('a', 'b'), rate=(1.0, 2.0))
    for variant, accuracy in zip(variants, (0.5, 0.6, 0.7, 0.8), strict=True):
        values = {'test_accuracy': accuracy}
        if variant['kind'] == 'a':
            values['published_accuracy'] = accuracy + 0.01
        write_variant(tmp_path, variant, values)
    report = make(tmp_path, variants, metrics=metrics)
    text = tables.text(report.tables[0], metrics)
    assert report.tables[0].title == 'Test accuracy by kind and rate'
    rows = [line.split() for line in text.splitlines()]
    assert ['a', '50.0', '60.0', '51', '61'] in rows
    assert ['b', '70.0', '80.0', '\u2013', '\u2013'] in rows


def test_one_swept_field_has_no_crossed_table(tmp_path):
    variants = two_settings(tmp_path, {'elbo': 1.0}, {'elbo': 2.0})
    assert [table.title for table in make(tmp_path, variants).tables] == ['Settings', 'Variants']


def test_a_cost_that_contains_the_swept_weight_does_not_rank(tmp_path):
    """By definition it grows with the weight: the next metric ranks, and the summary says so."""
    metrics = (
        Metric('cost', better='lower', primary=True, depends_on=('rate',)),
        Metric('active_units', unit='count'),
        Metric('psnr', unit='dB', better='higher', label='PSNR'),
        Metric('error', better='lower'),
    )
    variants = two_settings(tmp_path, {'cost': 1.0, 'error': 3.0}, {'cost': 2.0, 'error': 1.0})
    summary = make(tmp_path, variants, metrics=metrics).summary
    assert summary.startswith('Best of 2 settings by error (lower is better): rate 2, with 1')
    assert summary.endswith(
        'The primary metric, cost, contains the swept rate, so settings are not ranked by it.'
    )
    with pytest.raises(
        UsageError, match='contains rate, which the sweep varies; choose one of psnr'
    ):
        sweep_report.best_key(metrics, 'cost', ('rate',))
    assert sweep_report.best_key(metrics, '', ('kind',)) == 'cost'
    with pytest.raises(UsageError, match='declare the direction of one'):
        sweep_report.best_key(metrics[:2], '', ('rate',))


def test_a_larger_table_is_kept_and_named(tmp_path, caplog):
    variants = sweep.grid(rate=(1.0, 2.0, 3.0))
    for variant in variants:
        write_variant(tmp_path, variant, {'elbo': -variant['rate']})
    make(tmp_path, variants)
    before = (tmp_path / 'sweep.csv').read_text()
    summary = make(tmp_path, variants[:2]).summary
    kept = tmp_path / 'tables' / '3-variants'
    assert summary.endswith(f'The previous tables, of 3 variants, are now in {kept}.')
    assert 'are now in' in caplog.text
    assert (kept / 'sweep.csv').read_text() == before and (kept / 'report.html').exists()
    assert len((tmp_path / 'sweep.csv').read_text().splitlines()) == 3
    assert 'now in' not in make(tmp_path, variants).summary  # a larger one replaces a smaller


def test_variants_link_to_their_reports(tmp_path):
    variants = two_settings(tmp_path, {'elbo': 1.0}, {'elbo': 2.0})
    report = tmp_path / 'variants' / 'rate=2.0' / 'report.html'
    report.write_text('')
    make(tmp_path, variants)
    page = (tmp_path / 'report.html').read_text()
    assert '<a href="variants/rate=2.0/report.html">2</a>' in page
    assert 'variants/rate=1.0/report.html' not in page  # it has none


def test_curves_of_many_variants_are_overlaid(tmp_path):
    """Also of a metric that was not evaluated, and of more variants than there are colors."""
    variants = sweep.grid(rate=tuple(float(i) for i in range(9)), kind=('a',))
    for variant in variants:
        rows = [{'step': n, 'error': variant['rate'] + n, 'note': None} for n in range(3)]
        write_variant(tmp_path, variant, {'elbo': -variant['rate']}, rows)
    figure = make(tmp_path, variants).figures['learning_error']
    (axes,) = figure.figure.axes
    assert len(axes.lines) == 9 and len({tuple(line.get_color()) for line in axes.lines}) == 9
    assert 'from the first setting' in figure.caption.lower()
