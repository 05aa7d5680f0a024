"""Describe an image network: the size, parameters, multiply-adds and receptive field of each layer.

    python -m launch.describe --network vgg_d
    python -m launch.describe --network resnet_50 --detail
    python -m launch.describe --network alexnet --image_size 256 --workdir runs/alexnet_256
    python -m launch.describe --compare

Nothing is trained. The result is a table, printed and written to report.html with a figure. Counts of the
classic networks are those of their papers or, where these are inconsistent, of the implementations that
follow them. Multiply-adds are counted per image, in convolutions and dense layers. `--compare` checks the papers'
statements about the relative sizes of networks by counting.
"""

import difflib
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launch import command

if TYPE_CHECKING:
    from lecture4.ops.receptive_field import LayerSummary, Stack
    from lecture4.train import Report

# Input shapes of the papers; 32 x 32 x 3 for the CIFAR networks and 224 x 224 x 3 for all others.
INPUT_SHAPES = {
    'alexnet': (227, 227, 3),
    'alexnet_one_stream': (227, 227, 3),
    'small_network': (28, 28, 1),
}


def main(argv: list[str]) -> int:
    """Parse the options, print the table and write the report.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: The network is unknown, or the report cannot be written.
    """
    parser = command.parser('launch.describe', __doc__ or '', dry_run=False)
    add = parser.add_argument
    add('--network', default='vgg_d', help='Network name; an unknown name prints the list.')
    add(
        '--image_size',
        type=int,
        default=0,
        help="Height and width of the input. Default: the paper's.",
    )
    add('--compare', action='store_true', help='Compare all classic networks instead of one.')
    add('--detail', action='store_true', help='List the layers inside blocks as separate rows.')
    add(
        '--workdir',
        default='',
        help='Directory for the report. Default: runs/describe-NETWORK, or -comparison.',
    )
    options = parser.parse_args(argv)
    if options.image_size < 0:
        raise command.LaunchError(f'--image_size {options.image_size}: expected at least 1')
    from lecture4.train import Metric
    from lecture4.train import report as reports

    metrics = (
        Metric('parameters', unit='count', better='lower', primary=True),
        Metric('multiply_adds', unit='count', better='lower', label='multiply-adds'),
        Metric('ratio', better='', label='ratio of the counts'),
    )
    try:
        if options.compare:
            report = compare()
        else:
            report = describe(options.network, options.image_size, options.detail)
    except ValueError as error:
        raise command.LaunchError(str(error)) from None
    name = 'comparison' if options.compare else options.network
    directory = pathlib.Path(options.workdir or f'runs/describe-{name}')
    try:
        directory.mkdir(parents=True, exist_ok=True)
        reports.write(directory, report, metrics, title=name.replace('_', ' '))
    except OSError as error:
        raise command.LaunchError(
            f'cannot write to {directory}: {error.strerror}; choose another --workdir'
        ) from None
    print(report.summary)
    for table in report.tables:
        print(reports.text(table, metrics))
    print(f'report: {directory / "report.html"}')
    return 0


def layer_stack(name: str) -> 'Stack':
    """The layers of a network with 1000 classes, or 10 for the CIFAR networks.

    Args:
      name: A network of `lecture4.vision.models.registry`, 'alexnet_one_stream' or 'small_network'.

    Returns:
      The layers, for `receptive_field.summarize`.

    Raises:
      ValueError: The name is unknown; the message lists all names.
    """
    from lecture4.vision import layer_specs
    from lecture4.vision.models import cnn, registry

    others = {
        'alexnet_one_stream': functools.partial(layer_specs.alexnet, 1),
        'small_network': functools.partial(cnn.layer_stack, cnn.CNN()),
    }
    # Auxiliary heads are not part of the stack used in testing.
    names = [*(key for key in registry.NETWORKS if key != 'googlenet_auxiliary'), *others]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, 1)
        hint = f'did you mean {nearest[0]}? ' if nearest else ''
        raise ValueError(f'unknown network {name!r}; {hint}expected one of {", ".join(names)}')
    if name in others:
        return others[name]()
    return registry.layer_stack(registry.create(name, 10 if name.startswith('cifar') else 1000))


def describe(name: str, image_size: int = 0, detail: bool = False) -> 'Report':
    """Describe a network.

    Args:
      name: As in `layer_stack`.
      image_size: Height and width of the input; 0 for those of the paper.
      detail: Whether the layers inside blocks are separate rows.

    Returns:
      A report with a table of all layers and a figure.

    Raises:
      ValueError: The name is unknown, or the image is too small for the network.
    """
    from lecture4.figures import layers
    from lecture4.ops import receptive_field
    from lecture4.train import Figure, Report, Table

    stack = layer_stack(name)
    shape = INPUT_SHAPES.get(name, (32, 32, 3) if name.startswith('cifar') else (224, 224, 3))
    if image_size:
        shape = (image_size, image_size, shape[-1])
    rows = receptive_field.summarize(stack, shape)
    parameters, macs = receptive_field.totals(rows)
    collapsed = receptive_field.collapse(rows)
    total = {'layer': 'total', 'parameters': parameters, 'multiply_adds': macs}
    caption = (
        f'Input {_by(shape)}. Receptive field: size in pixels of the input, padding included; '
        'stride: pixels between neighboring units; center: position of the first unit, where pixel 0 has its '
        'center at 0.'
    )
    title = name.replace('_', ' ')
    return Report(
        metrics={'parameters': parameters, 'multiply_adds': macs},
        tables=(
            Table(
                f'Layers of {title}',
                [*map(_record, rows if detail else collapsed), total],
                index=('layer',),
                caption=caption,
            ),
        ),
        figures={'layers': Figure(layers.network(collapsed, title=title), caption)},
        summary=f'{parameters:,} parameters, {macs:,} multiply-adds for an input of {_by(shape)}.',
    )


def compare() -> 'Report':
    """Compare the classic networks.

    Returns:
      A report with a table of statements and the counted values, a table of networks, and a figure of both. Its
      metrics are GoogLeNet's counts and the ratios.
    """
    from lecture4.figures import layers
    from lecture4.train import Figure, Report, Table
    from lecture4.vision import comparative_counts

    statements, networks = comparative_counts.comparisons(), comparative_counts.networks()
    records = [
        {
            'statement': one.statement,
            'quantity': one.quantity,
            'first': f'{one.first:,}',
            'second': f'{one.second:,}',
            'ratio': one.ratio,
            'published': '' if one.published is None else f'{one.published:.3g}',
            'note': one.note,
        }
        for one in statements
    ]
    sizes = [
        {
            'network': name,
            'layers with weights': counts.weight_layers,
            'building blocks': counts.blocks,
            'parameters': counts.parameters,
            'multiply_adds': counts.multiply_adds,
            'in dense layers': f'{counts.dense_parameters / counts.parameters:.1%}',
            'receptive field': counts.receptive_field,
        }
        for name, counts in networks.items()
    ]
    caption = (
        'Left: parameters against multiply-adds of one image, with the number of layers with weights. Right: the '
        'larger count over the smaller one, counted (bars) and published (marks); 12 is 60 million over 5 million.'
    )
    drawn = layers.comparison(
        {name: (c.parameters, c.multiply_adds, c.weight_layers) for name, c in networks.items()},
        {one.statement: (one.ratio, one.published) for one in statements},
    )
    twelve = next(one for one in statements if one.published == 12)
    googlenet = networks['GoogLeNet']
    return Report(
        metrics={
            'parameters': googlenet.parameters,
            'multiply_adds': googlenet.multiply_adds,
        },
        tables=(
            Table('Statements and counts', records, index=('statement',)),
            Table('Networks', sizes, index=('network',)),
        ),
        figures={'comparison': Figure(drawn, caption)},
        summary=f'{twelve.statement}: {twelve.ratio:.1f} times by count ({twelve.note}).',
    )


def _record(row: 'LayerSummary') -> dict[str, Any]:
    record = {
        'layer': row.name,
        'kind': row.kind,
        'output': _by(row.output),
        'parameters': row.parameters,
        'multiply_adds': row.macs,
        'receptive field': _by(row.receptive_field, same=True),
    }
    if any(row.stride):
        record |= {'stride': _by(row.stride, same=True), 'center': _by(row.start, same=True)}
    return record


def _by(sizes: Sequence[float], same: bool = False) -> str:
    """'3 x 3'; with `same`, '3' where all sizes are equal."""
    texts = [f'{size:g}' for size in sizes]
    return texts[0] if same and len(set(texts)) == 1 else ' x '.join(texts)


if __name__ == '__main__':
    command.main('launch.describe', main)
