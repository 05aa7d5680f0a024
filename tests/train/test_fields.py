"""Domains in field types: one check for all experiments, and the words of --help."""

import dataclasses
import math

import pytest

from lecture4.train import fields
from lecture4.train.config import Config, cadence


@dataclasses.dataclass(frozen=True)
class Example(Config):
    learning_rate: fields.Positive = 1e-3
    mask_rate: fields.Fraction = 0.3
    momentum: fields.FractionBelow1 = 0.9
    latent_dim: fields.AtLeast1 = 200
    kernel_sizes: fields.Ints = (3, 4, 5)
    bound: fields.Positive | None = None
    noise: float = 0.0


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('learning_rate', 0.0, '--learning_rate is 0.0; it has to be above 0'),
        ('learning_rate', math.inf, '--learning_rate is inf; it has to be finite'),
        ('mask_rate', 1.5, '--mask_rate is 1.5; it has to be at least 0 and at most 1'),
        ('mask_rate', math.nan, '--mask_rate is nan'),
        ('momentum', 1.0, '--momentum is 1.0; it has to be at least 0 and below 1'),
        ('latent_dim', 0, '--latent_dim is 0; it has to be at least 1'),
        ('kernel_sizes', (), r'--kernel_sizes is \(\); it has to be at least 1 value'),
        ('kernel_sizes', (3, 0), r'--kernel_sizes \(entry 2\) is 0; it has to be at least 1'),
        ('bound', -1.0, '--bound is -1.0; it has to be above 0'),
        ('noise', math.nan, '--noise is nan; it has to be finite'),
        ('seed', 2**32, '--seed is 4294967296; it has to be at least 0 and below 4294967296'),
        ('steps', 0, '--steps is 0; it has to be at least 1'),
    ],
)
def test_value_outside_its_domain_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Example(**{field: value})


def test_values_at_the_ends_of_their_domains_are_accepted():
    high = Example(mask_rate=1.0, momentum=0.0, latent_dim=1, bound=None, seed=2**32 - 1)
    assert (high.mask_rate, high.momentum, high.latent_dim) == (1.0, 0.0, 1)
    assert high.bound is None and high.seed == 2**32 - 1
    low = Example(mask_rate=0.0, bound=0.5)
    assert low.mask_rate == 0.0 and low.bound == 0.5


@pytest.mark.parametrize(
    'field, words',
    [
        ('learning_rate', '> 0'),
        ('mask_rate', 'in [0, 1]'),
        ('momentum', 'in [0, 1)'),
        ('latent_dim', '>= 1'),
        ('kernel_sizes', 'each >= 1'),
        ('bound', '> 0'),
        ('noise', ''),
    ],
)
def test_domain_in_the_words_of_help(field, words):
    assert fields.describe(fields.hints(Example)[field]) == words


@pytest.mark.parametrize(
    'options, expected',
    [
        ({'steps': 1000}, (10, 50, 250)),
        ({'steps': 30}, (1, 2, 8)),
        ({'steps': 1000, 'steps_per_call': 20}, (20, 60, 260)),
        ({'steps': 1000, 'log_every': 7, 'evaluate_every': 30, 'save_every': 1}, (7, 30, 1)),
        ({'steps': 1000, 'log_every': 7, 'steps_per_call': 5}, (10, 50, 250)),
        ({'steps': 1}, (1, 1, 1)),
    ],
)
def test_cadence_follows_from_the_number_of_steps(options, expected):
    config = Example(**options)
    names = ('log_every', 'evaluate_every', 'save_every')
    assert tuple(cadence(config, name) for name in names) == expected


@dataclasses.dataclass(frozen=True)
class Redeclared(Example):
    # Number of images per step,
    # over all devices.
    batch_size: fields.AtLeast1 = 8
    steps: fields.AtLeast1 = 5


def test_help_is_the_comment_above_the_field_or_the_inherited_one():
    helps = fields.helps(Redeclared)
    assert helps['batch_size'] == 'Number of images per step, over all devices.'
    assert helps['steps'] == 'Number of training steps.'
    assert helps['noise'] == ''
