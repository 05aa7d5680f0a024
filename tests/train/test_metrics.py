"""Declared metrics: names, units and directions are checked, keys find their metric."""

import math

import numpy as np
import pytest

from lecture4.train.metrics import (
    Metric,
    check_declared,
    check_metrics,
    decimals,
    metric_of,
    primary,
    title_of,
)

METRICS = (
    Metric('loss', unit='nats', better='lower'),
    Metric('recall', unit='fraction', better='higher', primary=True),
    Metric('psnr', unit='dB', better='higher', label='PSNR'),
    Metric('active_units', unit='count'),
)


def test_a_label_is_the_name_in_words_unless_given():
    assert Metric('active_units', unit='count').title == 'active units'
    assert Metric('psnr', unit='dB', label='PSNR').title == 'PSNR (dB)'
    assert Metric('probe_error', unit='fraction').title == 'probe error (%)'
    assert Metric('latency', unit='us').title == 'latency (µs)'


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'name': 'recall/cat'}, "name 'recall/cat': expected a name without '/'"),
        ({'name': 'step'}, "name 'step'"),
        ({'name': 'error', 'unit': '%'}, "use 'fraction' and values in \\[0, 1\\]"),
        ({'name': 'error', 'unit': 'percent'}, "use 'fraction'"),
        ({'name': 'error', 'better': 'smaller'}, "better is 'smaller', expected 'higher', 'lower'"),
    ],
)
def test_a_wrong_declaration_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Metric(**fields)


def test_exactly_one_metric_is_primary_and_names_are_unique():
    check_declared(METRICS)
    assert primary(METRICS).name == 'recall'
    with pytest.raises(
        ValueError, match='one primary metric of loss, psnr, active_units, got none'
    ):
        check_declared([metric for metric in METRICS if not metric.primary])
    with pytest.raises(ValueError, match='got recall, error'):
        check_declared([*METRICS, Metric('error', primary=True)])
    with pytest.raises(ValueError, match='declared twice: loss'):
        check_declared([*METRICS, Metric('loss')])


def test_prefix_and_qualifiers_belong_to_the_named_metric():
    for key in ('recall', 'eval/recall', 'recall/cat', 'eval/recall/cat/large'):
        assert metric_of(METRICS, key).name == 'recall'
    assert title_of(METRICS, 'eval/recall/cat') == 'recall, cat (evaluation, %)'
    assert title_of(METRICS, 'eval/active_units') == 'active units (evaluation)'
    with pytest.raises(ValueError, match=r'metric recalled is not declared; .* loss, recall, psnr'):
        metric_of(METRICS, 'recalled')


def test_an_undeclared_key_is_refused_with_its_place():
    row = {'step': 10, 'seconds': 0.5, 'recall': 0.5, 'eval/lost': 1.0}
    with pytest.raises(ValueError, match='row 10: metric eval/lost is not declared'):
        check_metrics(METRICS, row, 'row 10')


@pytest.mark.parametrize('value', [1.1, -0.01, 45.0, np.array([0.5, 2.0]), [None, 3.0]])
def test_fractions_stay_in_the_unit_interval(value):
    with pytest.raises(
        ValueError, match=r'report: recall/cat is .*, expected a fraction in \[0, 1\]'
    ):
        check_metrics(METRICS, {'recall': 0.5, 'recall/cat': value}, 'report')


def test_rounding_and_missing_values_pass_as_fractions():
    for value in (1 + 1e-7, -1e-7, None, math.nan, [0.0, None, 1.0]):
        check_metrics(METRICS, {'recall': value, 'psnr': 120.0, 'loss': -3.0}, 'report')


def test_the_primary_metric_is_required_without_qualifier():
    for values in ({}, {'loss': 1.0}, {'recall/cat': 0.5}, {'eval/recall': 0.5}):
        with pytest.raises(ValueError, match='report: the primary metric recall is missing'):
            check_metrics(METRICS, values, 'report')
        check_metrics(METRICS, values, 'row 3', primary_required=False)


def test_decimals_show_the_digits_of_the_largest():
    assert decimals([12.345, 0.1]) == 2
    assert decimals([3, 4000]) == 0
    assert decimals([99.5, 100.0], digits=3, least=1) == 1
    assert decimals([0.0123], digits=2) == 3
    assert decimals([math.nan]) == 3
