"""Runs a named sweep: groups of variants in one program or one by one, then one table."""

import csv
import dataclasses
import json
import logging
import os
import pathlib

import jax

from lecture4.train import loop, sweep, workdir
from lecture4.train import report as reports
from lecture4.train.config import Common, UsageError
from lecture4.train.experiment import Experiment, check_devices, conclude, load, single
from lecture4.train.metrics import read
from lecture4.train.runtime import Runtime, start

LOG = logging.getLogger(__name__)


def run(experiment: Experiment, config: Common, directory: pathlib.Path):
    """All variants of `config.sweep`; finished ones are kept, the table is made of all.

    Every variant ends with a directory of its own, variants/NAME, with metrics and report; a
    vmapped group keeps its common checkpoints in groups/NAME. Returns (path, report).
    """
    variants = sweep.variants(config, experiment.sweeps[config.sweep])
    runtime = start(config)
    check_devices(config, runtime)
    with workdir.claim(directory, config, config.overwrite, runtime.describe()):
        base = dataclasses.replace(config, overwrite=False)
        for group_name, group in sweep.groups(base, variants).items():
            if all(_finished(directory, base, variant) for variant in group):
                continue
            if _vectorized(experiment, base, group):
                _together(experiment, base, group, runtime, directory, group_name)
            else:
                _one_by_one(experiment, base, group, runtime, directory)
        return _conclude(experiment, base, variants, directory)


def _vectorized(experiment, config, group) -> bool:
    """Whether a group runs as one program: told, or on an accelerator, or a tiny model."""
    if config.vectorize != 'auto':
        return config.vectorize == 'vmap'
    if len(group) == 1:
        return False
    try:
        program = sweep.stack(config, group, lambda c: load(experiment, c), experiment.build)
    except UsageError as error:  # untraceable: the loop can do it
        LOG.info('variants run one by one: %s', error)
        return False
    state = jax.eval_shape(program.init, program.key, program.resident, program.batch(0))
    return jax.default_backend() != 'cpu' or sweep.size(state) < sweep.TINY * len(group)


def _place(directory, variant) -> pathlib.Path:
    return directory / 'variants' / sweep.name(variant)


def _finished(directory, config, variant) -> bool:
    """A variant with a report of the same config needs no second run."""
    place = _place(directory, variant)
    workdir.check(place, dataclasses.replace(config, **variant), overwrite=False)
    return (place / 'results.json').exists()


def _one_by_one(experiment, config, group, runtime: Runtime, directory):
    for variant in group:
        if not _finished(directory, config, variant):
            LOG.info('variant %s', sweep.name(variant))
            own = dataclasses.replace(config, **variant)
            place = _place(directory, variant)
            single(experiment, own, load(experiment, own), runtime, place)


def _together(experiment, config, group, runtime: Runtime, directory, group_name):
    """One loop over a stacked state; then each variant's rows and report in its own directory."""
    program = sweep.stack(config, group, lambda c: load(experiment, c), experiment.build)
    place = directory / 'groups' / group_name
    place.mkdir(parents=True, exist_ok=True)
    LOG.info('%d variants in one program', len(group))
    states = loop.run(program, config, runtime, place, f'{len(group)} variants')
    for i, variant in enumerate(group):
        own = dataclasses.replace(config, **variant)
        with workdir.claim(_place(directory, variant), own, True, runtime.describe()):
            _write_rows(read(place / 'metrics.jsonl'), i, _place(directory, variant))
            data = load(experiment, own)
            conclude(experiment, own, sweep.take(states, i), data, _place(directory, variant))


def _write_rows(rows, i: int, place: pathlib.Path):
    """Variant i's share of a group's metrics."""
    own = [
        {name: value[i] if isinstance(value, list) else value for name, value in row.items()}
        for row in rows
    ]
    (place / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in own))


def _conclude(experiment, config, variants, directory):
    """The table of all variants, as sweep.csv and report.html. Returns (path, report)."""
    results = []
    for variant in variants:
        place = _place(directory, variant)
        last = {}
        for row in read(place / 'metrics.jsonl'):
            last.update(row)
        reported = json.loads((place / 'results.json').read_text())['metrics']
        results.append({**variant, **last, **reported})
    columns = tuple(dict.fromkeys(name for result in results for name in result))
    rows = tuple(tuple(result.get(name, '') for name in columns) for result in results)
    temporary = directory / 'sweep.csv.tmp'
    with temporary.open('w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])
    os.replace(temporary, directory / 'sweep.csv')
    report = reports.Report(
        tables=(reports.Table(f'Sweep {config.sweep}', columns, rows, 'Values at the last step.'),)
    )
    title = f'{experiment.name.replace("_", " ")}: sweep {config.sweep}'
    reports.write(directory, report, title=title, about=experiment.about)
    return directory / 'report.html', report
