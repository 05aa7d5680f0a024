"""A network's layers: sizes, parameters, multiply-adds, receptive fields; a table and a picture.

Nothing is trained. Counts of the classic networks are those of their papers or, where these do not
add up, of the implementations that follow them (tests/vision/test_layouts.py). Multiply-adds are of
one picture, of convolutions and dense layers.

Run     python -m experiments.convnets.describe --network vgg_d
Cost    seconds.
"""

import dataclasses
import difflib
import functools
import pathlib
import sys
from typing import ClassVar

from lecture4 import train
from lecture4.ops import receptive_field
from lecture4.train import cli, experiment, workdir
from lecture4.train import report as reports
from lecture4.vision import layer_specs
from lecture4.vision.models import cnn, registry

# What the papers' networks see; the others, pictures of 224 x 224.
SHAPES = {
    'alexnet': (227, 227, 3),
    'alexnet_one_stream': (227, 227, 3),
    'small_network': (28, 28, 1),
}
OTHERS = {
    'alexnet_one_stream': functools.partial(layer_specs.alexnet, 1),
    'small_network': functools.partial(cnn.layer_stack, cnn.CNN()),
}
# Auxiliary heads, which nothing passes through, are no part of a stack.
NAMES = (*(name for name in registry.NETWORKS if name != 'googlenet_auxiliary'), *OTHERS)


def stack_of(name):
    """The layers of a network of 1000 classes, of 10 for the CIFAR family."""
    if name in OTHERS:
        return OTHERS[name]()
    return registry.layer_stack(registry.create(name, 10 if name.startswith('cifar') else 1000))


def shape_of(name):
    """Height, width and channels of what the network sees in its paper."""
    return SHAPES.get(name, (32, 32, 3) if name.startswith('cifar') else (224, 224, 3))


@dataclasses.dataclass(frozen=True)
class Config:
    # Which network; a name that is none lists them all.
    network: str = 'vgg_d'
    # Height and width of the input; 0 takes the paper's.
    side: int = 0
    # Show the layers inside blocks as rows of their own.
    detail: bool = False
    # Named settings, listed above; options given beside it override them.
    preset: str = ''
    # Where the report goes. Default: runs/describe-NETWORK.
    workdir: str = ''
    # Throw away what workdir holds.
    overwrite: bool = False

    # What the command line asks every experiment for, and here is never given.
    sweep: ClassVar[str] = ''
    grid: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.network not in NAMES:
            near = difflib.get_close_matches(self.network, NAMES, 1)
            hint = f'did you mean {near[0]}? ' if near else ''
            raise ValueError(
                f'--network {self.network} is unknown; {hint}There are {", ".join(NAMES)}'
            )
        train.require(self, 'side', self.side >= 0, "at least 1, or 0 for the paper's")


PRESETS = {'smoke': {'network': 'small_network'}}


def describe(config) -> train.Report:
    from lecture4.figures import layers

    shape = shape_of(config.network)
    if config.side:
        shape = (config.side, config.side, shape[-1])
    rows = receptive_field.summarize(stack_of(config.network), shape)
    parameters, macs = receptive_field.totals(rows)
    short = receptive_field.collapse(rows)
    cells = [
        (
            row.name,
            row.kind,
            _by(row.output),
            f'{row.parameters:,}',
            f'{row.macs:,}',
            _by(row.receptive_field, same=True),
            _by(row.stride, same=True) if any(row.stride) else '',
            _by(row.start, same=True) if any(row.stride) else '',
        )
        for row in (rows if config.detail else short)
    ]
    columns = (
        'layer',
        'kind',
        'output',
        'parameters',
        'multiply-adds',
        'field',
        'stride',
        'centre',
    )
    caption = (
        f'Input {_by(shape)}. Field: pixels of the input that a unit sees; stride: pixels between '
        'neighbouring units; centre: where the first unit looks, pixel 0 having its centre at 0. '
        'Padding counts as seen.'
    )
    total = ('all', '', '', f'{parameters:,}', f'{macs:,}', '', '', '')
    title = config.network.replace('_', ' ')
    return train.Report(
        metrics={'parameters': parameters, 'multiply_adds': macs},
        tables=(train.Table(f'Layers of {title}', columns, (*cells, total), caption),),
        pictures={'layers': train.Picture(layers.network(short, title=title), caption)},
        summary=f'{parameters:,} parameters, {macs:,} multiply-adds for an input of {_by(shape)}.',
    )


def _by(sides, same=False):
    """'3 x 3', or '3' where all sides are one and `same` says that this is enough."""
    texts = [f'{side:g}' for side in sides]
    return texts[0] if same and len(set(texts)) == 1 else ' x '.join(texts)


def main(arguments):
    parts = experiment.Experiment(Config, describe, describe, describe, PRESETS, {})  # pyright: ignore
    try:
        config = cli.parse(parts, arguments)
        report = describe(config)
        directory = pathlib.Path(config.workdir or f'runs/describe-{config.network}')  # pyright: ignore
        with workdir.acquire(directory, config, config.overwrite, {}):
            reports.write(directory, report, title=config.network, about=parts.about)  # pyright: ignore
    except (train.UsageError, ValueError, OSError) as error:
        print(f'describe: {error}', file=sys.stderr)
        sys.exit(2)
    print(report.summary)
    print(reports.text(report.tables[0]))
    print(f'report: {directory / "report.html"}')


if __name__ == '__main__':
    main(sys.argv[1:])
