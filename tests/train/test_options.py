"""Options: typed values from words, errors that say what was expected, help with domains."""

import dataclasses
import pathlib
from typing import Literal

import pytest

from lecture4 import train
from lecture4.train import fields, options, renamed_options
from lecture4.train.config import UsageError


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Fraction of the input set to zero.
    mask_rate: train.Fraction = 0.3
    # Sizes of the hidden layers.
    hidden_dims: tuple[train.AtLeast1, ...] = (8, 4)
    # Range of scales.
    scales: tuple[float, float] = (0.5, 1.0)
    # Nonlinearity of the encoder.
    activation: Literal['relu', 'tanh'] = 'relu'
    # Number of examples; none takes all.
    num_train: int | None = None
    # Crops at test time.
    test_crops: tuple[str, ...] = ('center',)
    # Height and width of patches.
    patch_size: int = 8
    # Height and width of images.
    image_size: int = 32


def read(*argv, **defaults):
    return options.read(Config, defaults, argv)


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['--mask_rate', '1e-1'], {'mask_rate': 0.1}),
        (['--mask-rate=.5', '--seed', '3'], {'mask_rate': 0.5, 'seed': 3}),
        (['--hidden_dims', '5', '6', '7'], {'hidden_dims': (5, 6, 7)}),
        (['--hidden_dims'], {'hidden_dims': ()}),
        (['--scales', '-1', '2.5'], {'scales': (-1.0, 2.5)}),
        (['--activation', 'tanh'], {'activation': 'tanh'}),
        (['--num_train', '7'], {'num_train': 7}),
        (['--num_train', 'none'], {'num_train': None}),
        (['--test_crops', '10', 'dense'], {'test_crops': ('10', 'dense')}),
        (['--download', '--no_overwrite'], {'download': True, 'overwrite': False}),
        (['--seed', '1', '--seed', '2'], {'seed': 2}),
        (['--hidden_dims', '5,6', '7'], {'hidden_dims': (5, 6, 7)}),
        (['--scales=-1,2.5'], {'scales': (-1.0, 2.5)}),
        (
            ['--grid', 'a=1', 'b=2', '--seed', '1', '--grid=c=3'],
            {'grid': ('a=1', 'b=2', 'c=3'), 'seed': 1},
        ),
        (['--download', 'True', '--overwrite=no'], {'download': True, 'overwrite': False}),
        (['--nodownload', '--overwrite', '1'], {'download': False, 'overwrite': True}),
        (['--no-download'], {'download': False}),
        (['--workdir', '~/runs'], {'workdir': str(pathlib.Path.home() / 'runs')}),
        (['--manual_dir', 'dir:~'], {'manual_dir': f'dir:{pathlib.Path.home()}'}),
        (['--manual_dir', 'a~/b'], {'manual_dir': 'a~/b'}),
    ],
)
def test_values_have_the_type_of_their_field(argv, expected):
    values = read(*argv, batch_size=4)
    assert values == {**vars(Config(batch_size=4)), **expected}
    for name, value in expected.items():
        assert type(values[name]) is type(value)


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--seed', '1.5'], '--seed 1.5: expected an integer'),
        (['--mask_rate', 'half'], '--mask_rate half: expected a number'),
        (['--hidden_dims', '5', 'x'], '--hidden_dims x: expected an integer'),
        (['--scales', '1'], '--scales 1: expected 2 values, got 1'),
        (['--activation', 'tan'], '--activation tan: expected one of relu, tanh'),
        (['--num_train', 'some'], '--num_train some: expected an integer'),
        (['--seed'], '--seed: expected one value, got none'),
        (['3'], "unexpected argument '3'; expected --NAME VALUE (--help lists all options)"),
        (['--sed', '1'], 'unknown option --sed; did you mean --seed? (--help lists all options)'),
        (
            ['--hidden_dims', '5', '--seed', '1', '--hidden-dims', '6'],
            '--hidden_dims is given twice; give all its values after one --hidden_dims',
        ),
        (['--download', 'maybe'], '--download maybe: expected --download or --no_download'),
        (['--xyz'], 'unknown option --xyz; (--help lists all options)'),
        (['--views', '10'], '--views is now --test_crops'),
        (['--masking=0.1'], '--masking is now --mask_rate'),
        (['--side', '8'], '--side is now --image_size or --patch_size'),
    ],
)
def test_mistakes_say_what_was_expected(argv, message):
    with pytest.raises(UsageError) as error:
        read(*argv)
    assert str(error.value) == message


def test_help_prints_types_domains_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        options.read(
            Config, {'mask_rate': 0.25}, ['--help'], description='About it.', prog='python -m job'
        )
    assert stop.value.code == 0
    text = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    for part in (
        'usage: python -m job',
        'About it.',
        '--mask_rate FLOAT Fraction of the input set to zero. [in [0, 1]] (default: 0.25)',
        '--hidden_dims [INT ...] Sizes of the hidden layers. [each >= 1] (default: 8 4)',
        '--scales FLOAT FLOAT',
        '--activation {relu,tanh} Nonlinearity of the encoder. (default: relu)',
        '--num_train INT|none',
        '--download, --no_download',
    ):
        assert part in text
    assert text.index('--mask_rate') < text.index('--preset')


def test_every_option_of_a_run_has_help():
    for name, text in fields.helps(train.Config).items():
        assert text.endswith('.') or ':' in text, name


def test_old_names_do_not_map_to_themselves():
    for old, new in renamed_options.OLD_OPTIONS.items():
        assert new and old not in new
