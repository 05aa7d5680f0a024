"""Compile an experiment for a TPU slice or a GPU node that is not attached, before paying for it.

    python -m launch.compile --topology v5e:4x4 -- python -m experiments.sparse_coding.self_taught
    python -m launch.compile --topology v5e:8x8 --fit -- python -m experiments.convnets.resnet_cifar
    python -m launch.compile --sizes v5e -- python -m experiments...     a scaling table, 8 to 1024 chips
    python -m launch.compile --topology v5e:4x4 --save step.bin -- python -m experiments...

TPU programs need `pip install libtpu`, GPU programs (h200:8) `pip install "jax[cuda12]"`; no device is used.
For each program (step, evaluate, encode) it prints the memory and memory traffic of a chip, every collective, a lower
bound of the time with the resource that sets it, and warnings, such as padding of the matrix unit and large replicated
arrays; compile.json and report.html contain the same. The times are counts divided by the chips' peak rates, not
measurements. The batch size is that of all chips together, and the same for each of several topologies.

--save writes the compiled step for --load_compiled of a run with the same options, versions and kind of devices, which
then compiles only what is not in the file. The file is a pickle: load only files that you wrote. Loading was tested on
CPUs (--topology cpu:4, for --devices 4); loading on a TPU or a pod was not tried.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from launch import command
from launch import experiment as launched

# 8 to 1024 chips: of the kinds with two-dimensional links, beyond 256 in several slices, and of those with three.
FLAT = '{}:2x4 {}:4x4 {}:4x8 {}:8x8 {}:8x16 {}:16x16 2x{}:16x16 4x{}:16x16'
DEEP = '{}:2x2x2 {}:2x2x4 {}:2x4x4 {}:4x4x4 {}:4x4x8 {}:4x8x8 {}:8x8x8 {}:8x8x16'
ACCUMULATE = 4
MAX_PER_CHIP = 2**16  # examples
SIZES = {'v4': DEEP, 'v5e': FLAT, 'v5p': DEEP, 'v6e': FLAT}


def main(argv: list[str]) -> int:
    """Parse the options, compile, print the tables and write the report.

    Args:
      argv: The words of the command line.

    Returns:
      0; 1 where a program does not fit into the memory of a chip.

    Raises:
      LaunchError: The experiment, its options or the topology are wrong, or the compiler is not installed.
    """
    parser = command.parser('launch.compile', __doc__ or '', dry_run=False)
    add = parser.add_argument
    add(
        '--topology',
        nargs='+',
        default=[],
        help='CHIP:SHAPE, such as v5e:4x4, h200:8, or 4xv5e:16x16 for four slices.',
    )
    add(
        '--sizes',
        choices=list(SIZES),
        help='Compile for 8, 16, ..., 1024 of these chips, in place of --topology.',
    )
    add(
        '--programs',
        nargs='+',
        default=['step', 'evaluate', 'encode'],
        choices=['step', 'evaluate', 'encode'],
        help='Programs to compile; those that the experiment does not have are left out.',
    )
    add(
        '--fit',
        action='store_true',
        help='Search for the largest batch whose step fits into memory, to a sixteenth: as it is, with --remat, with '
        f'--accumulate {ACCUMULATE}, and with both.',
    )
    add(
        '--save',
        default='',
        metavar='FILE',
        help='Write the compiled step to this file, for --load_compiled of the same run.',
    )
    add('--workdir', default='', help='Directory for the report. Default: runs/compile-EXPERIMENT.')
    launcher_args, words = command.split(argv)
    options = parser.parse_args(launcher_args)
    words = launched.command_line(words)
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    from lecture4.train import cli, experiment, topology
    from lecture4.train import compile as compiler
    from lecture4.train.config import UsageError

    try:
        this = experiment.from_module(launched.load_module(words))
        config = cli.parse(this, launched.arguments(words))
        names = topologies(options)
        if options.save and (len(names) > 1 or 'step' not in options.programs):
            raise command.LaunchError('--save expects one topology and the program step')
        targets = [topology.target(name) for name in names]
        data = experiment.load(this, config)
        records = []
        for on in targets:
            chosen = tuple(options.programs)
            try:
                made = compiler.compile_experiment(this, config, data, on, chosen, options.save)
            except compiler.DoesNotFit as error:
                if not options.fit:
                    raise
                print(error)
                continue
            records += [record(program, on) for program in made]
        if options.fit:
            for on in targets:
                records += [record(program, on) for program in largest_fits(this, config, on)]
    except UsageError as error:
        raise command.LaunchError(str(error)) from None
    if options.save:
        print(f'compiled step: {options.save}')
    directory = pathlib.Path(options.workdir or f'runs/compile-{this.name}')
    write(directory, this.name, records)
    return int(any('does not fit' in note for entry in records for note in entry['notes']))


def topologies(options: argparse.Namespace) -> list[str]:
    """Names of the targets that --topology or --sizes selects.

    Raises:
      LaunchError: Neither or both are given.
    """
    if bool(options.topology) == bool(options.sizes):
        raise command.LaunchError('expected either --topology CHIP:SHAPE or --sizes CHIP')
    return options.topology or SIZES[options.sizes].replace('{}', options.sizes).split()


def scaling(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Training steps of the same batch on slices of growing size, and their efficiency relative to the smallest.

    Args:
      records: As `record` returns them.

    Returns:
      For each topology its chips, the least time of a step, the rate, and 'efficiency': the rate per chip as a fraction
      of that of the smallest one.
    """
    steps = [r for r in records if r['name'] == 'step' and r['examples_per_second']]
    steps.sort(key=lambda r: r['chips'])
    first = steps[0]['examples_per_second'] / steps[0]['chips'] if steps else 1.0
    return [
        {
            'topology': r['topology'],
            'chips': r['chips'],
            'ms per step': 1e3 * max(r['seconds'].values()),
            'examples/s': r['examples_per_second'],
            'efficiency': r['examples_per_second'] / r['chips'] / first,
            'bound by': r['bound'],
        }
        for r in steps
    ]


def record(program: Any, on: Any) -> dict[str, Any]:
    """The counts of one program on one target as JSON-serializable values; bytes are per chip.

    Args:
      program: A `lecture4.train.compile.Program`.
      on: Its `Target`.
    """
    times = program.seconds(on)
    bound = max(times, key=times.__getitem__, default='unknown')
    return {
        'topology': on.name,
        'chips': on.mesh.size,
        **{
            name: value
            for name, value in dataclasses.asdict(program).items()
            if name != 'collectives'
        },
        'collectives': [dict(c._asdict()) for c in program.collectives],
        'peak_memory': program.peak_memory(),
        'memory': on.chip.memory,
        'seconds': times,
        'bound': bound,
        'examples_per_second': program.examples / times[bound] if times.get(bound) else None,
        'notes': program.warnings(on),
        'peaks_from': on.chip.source,
    }


def largest_fits(this: Any, config: Any, on: Any) -> list[Any]:
    """The step of the largest batch that fits, for each way to compute the gradient in less memory.

    Args:
      this: The experiment.
      config: Its config.
      on: The target.

    Returns:
      Programs named 'step, batch N', with --remat and --accumulate where they are used; those options are left out
      where the step is not that of an optax optimizer.

    Raises:
      UsageError: The memory of the chips is not known, or not even the smallest batch fits.
    """
    from lecture4.train import compile as compiler
    from lecture4.train import experiment
    from lecture4.train.config import UsageError

    if not on.chip.memory:
        raise UsageError(f'--fit needs the memory of the chips, which is not known for {on.name}')
    found = []
    for accumulate, remat in itertools.product((1, ACCUMULATE), (False, True)):
        name = ' --remat' * remat + f' --accumulate {accumulate}' * (accumulate > 1)

        def compiled(n, accumulate=accumulate, remat=remat):
            fields = {'batch_size': n * on.mesh.size * accumulate, 'accumulate': accumulate}
            resized = dataclasses.replace(config, **fields, remat=remat)
            data = experiment.load(this, resized)
            try:
                (program,) = compiler.compile_experiment(this, resized, data, on, ('step',))
            except compiler.DoesNotFit:
                return None
            return program

        try:
            n, program = bisect(compiled, on.chip.memory)
        except UsageError as error:
            if not found:
                raise
            print(f'{on.name},{name}: {error}')
            continue
        size = n * on.mesh.size * accumulate
        found.append(dataclasses.replace(program, name=f'step, batch {size}{name}'))
        print(f'{on.name}: batch {size} fits{name and " with" + name}', flush=True)
    return found


def bisect(compiled: Callable[[int], Any], memory: float) -> tuple[int, Any]:
    """The largest n whose program fits into memory, to a sixteenth; memory is taken to be linear for the first guess.

    Args:
      compiled: n -> Program, or None where the compiler finds none that fits; n up to MAX_PER_CHIP.
      memory: Bytes of a chip.

    Returns:
      n and its program.

    Raises:
      UsageError: Not even n = 1 fits.
    """
    from lecture4.train.config import UsageError

    fitting, too_many, n = [], MAX_PER_CHIP + 1, 1
    while True:
        program = compiled(n)
        if program is not None and program.peak_memory() <= memory:
            fitting.append((n, program))
        else:
            too_many = n
        if not fitting:
            raise UsageError('not even one example per chip fits')
        low, best = fitting[-1]
        step = max(1, low // 16)
        if too_many - low <= step:
            return low, best
        if too_many <= MAX_PER_CHIP:
            n = (low + too_many) // 2
        elif len(fitting) == 1:
            n = 4
        else:
            (a, first), (b, second) = fitting[-2:]
            per_example = max(1.0, (second.peak_memory() - first.peak_memory()) / (b - a))
            n = int(low + 0.97 * (memory - best.peak_memory()) / per_example)
            n = min(max(n, low + step), 64 * low, MAX_PER_CHIP)


def write(directory: pathlib.Path, name: str, records: list[dict[str, Any]]) -> None:
    """Print the table and write compile.json and report.html.

    Args:
      directory: Created if needed.
      name: The experiment's name.
      records: As `record` returns them.
    """
    from lecture4.train import Figure, Metric, Report, Table
    from lecture4.train import report as reports

    rows = [
        {
            'topology': r['topology'],
            'program': r['name'],
            'compiled in': f'{r["compile_seconds"]:.1f} s',
            'state': size(r['state']),
            'temporaries': size(r['temporaries']),
            'memory': f'{r["peak_memory"] / 1e9:.2f}'
            + (f' of {r["memory"] / 1e9:.0f} GB' if r['memory'] else ' GB'),
            'flops per chip': f'{r["flops"] / r["chips"]:.2e}',
            'moved': size(r['bytes']),
            'flops per byte': f'{r["flops"] / r["chips"] / max(1, r["bytes"]):.3g}',
            'collectives': ', '.join(
                f'{c["times"]} {c["kind"]} ({size(c["bytes"])})' for c in r['collectives']
            )
            or 'none',
            'bound by': f'{r["bound"]}, {r["seconds"][r["bound"]] * 1e3:.3g} ms'
            if r['seconds']
            else '',
            'at most': f'{r["examples_per_second"]:.3g} examples/s' if r['seconds'] else '',
        }
        for r in records
    ]
    table = Table(
        f'{name.replace("_", " ")}: compiled, not run',
        rows,
        ('topology', 'program'),
        caption='Bytes and flops per chip. The time is the largest of flops, bytes moved and bytes of '
        'collectives, each divided by the peak rate of the chip; a real run takes longer.',
    )
    notes = [f'{r["topology"]}, {r["name"]}: {note}' for r in records for note in r['notes']]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'compile.json').write_text(json.dumps(records, indent=2) + '\n')
    peak = max(r['peak_memory'] for r in records) / 1e9
    metrics = (Metric('peak_memory', 'GB', 'lower', 'peak memory of a chip', primary=True),)
    tables, figures = (table,), {}
    if len(ladder := scaling(records)) > 1:
        from lecture4.figures import lines

        metrics += (Metric('efficiency', 'fraction', 'higher', 'efficiency'),)
        caption = (
            'The same batch on all sizes; a step bound by links or the network between slices '
            'gains nothing from more chips.'
        )
        tables += (Table('Scaling', ladder, ('topology',), caption=caption),)
        chips, rates = zip(*[(r['chips'], r['examples/s']) for r in ladder], strict=True)
        ideal = [rates[0] * n / chips[0] for n in chips]
        curves = {'compiled': (chips, rates), 'proportional to the chips': (chips, ideal)}
        panel = {'curves': curves, 'xlabel': 'chips', 'ylabel': 'examples/s, at most'}
        drawn = lines.panels({'Scaling': panel | {'xscale': 'log', 'yscale': 'log'}})
        figures = {'scaling': Figure(drawn, 'Largest rate of the training step.')}
        limits = [r for r in ladder if r['bound by'] in ('links', 'network')]
        if limits:
            notes.append(
                f'at {limits[0]["chips"]} chips the step is bound by: {limits[0]["bound by"]}; enlarge the '
                'batch or use fewer'
            )
    report = Report({'peak_memory': peak}, tables, figures, '; '.join(notes))
    reports.write(directory, report, metrics, title=f'compile {name}', about=__doc__ or '')
    for each in tables:
        print(reports.text(each, metrics))
    print('\n'.join(notes))
    print(f'report: {directory / "report.html"}')


def size(n: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1: 81 MB."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if n < 1000 or unit == 'GB':
            return f'{n:.3g} {unit}'
        n /= 1000
    raise AssertionError


if __name__ == '__main__':
    command.main('launch.compile', main)
