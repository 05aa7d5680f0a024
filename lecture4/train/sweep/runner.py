"""Run a sweep: groups of variants in one program or one by one, then one table of all."""

import dataclasses
import json
import logging
import os
import pathlib
import traceback

import jax

from lecture4.train import loop, workdir
from lecture4.train.config import Config, UsageError
from lecture4.train.distributed import processes
from lecture4.train.distributed.runtime import Interrupted, Runtime, start
from lecture4.train.experiment import (
    Experiment,
    check_devices,
    finalize,
    load,
    single,
    to_local,
)
from lecture4.train.metric_writer import read
from lecture4.train.report import Report
from lecture4.train.sweep import report as sweep_report
from lecture4.train.sweep import results
from lecture4.train.sweep import variants as sweep

LOG = logging.getLogger(__name__)


class SweepFailed(Exception):
    """Some variants of a sweep failed; the others are in the table."""


def run(experiment: Experiment, config: Config, directory: pathlib.Path):
    """Run all variants of a sweep, or the stage that --stage names. Returns (path, report).

    Finished variants are not run again; the failure of a variant is recorded and the next one starts; the table has
    all. Every variant has its own directory, variants/NAME, with metrics and report; a vmapped group keeps its common
    checkpoints in groups/NAME.

    Raises:
      SweepFailed: Some variants failed; raised after the table is written.
    """
    variants = sweep.variants(config, sweep.requested(config, experiment.sweeps))
    swept = {name for variant in variants for name in variant}
    sweep_report.best_key(
        experiment.metrics, config.best, swept
    )  # a wrong --best fails before any run
    base = dataclasses.replace(config, overwrite=False)
    grouped = sweep.groups(base, variants)
    if config.group:
        alone = {sweep.name(variant): [variant] for variant in variants}
        if config.group not in {**alone, **grouped}:
            raise UsageError(f'--group {config.group}: the groups are {" ".join(grouped)}')
        grouped = {config.group: {**alone, **grouped}[config.group]}
    if config.stage == 'table':
        return _write_table(experiment, base, variants, directory)
    if config.vectorize == 'vmap' and len(variants) > 1:
        _check_shared(base, variants, sweep.groups(base, variants))
    runtime = start(config)
    check_devices(config, runtime)
    if config.stage == 'plan':
        print(json.dumps(_plan(experiment, base, grouped, runtime, directory)))
        return None, Report()
    workdir.preflight(directory, runtime)
    if (
        config.group
    ):  # one of several processes that share the directory: it takes no lock on the whole
        return _groups(experiment, base, grouped, runtime, directory)
    with workdir.run_lock(directory, config, config.overwrite, runtime):
        _groups(experiment, base, grouped, runtime, directory)
        failures = processes.broadcast_from_primary(
            lambda: _failures(experiment, base, variants, directory)
        )
        if failures:
            raise SweepFailed(failures)
        report = Report()
        if runtime.is_primary:
            report = sweep_report.make(experiment, base, variants, directory)
        return directory / 'report.html', report


def _failures(experiment, config, variants, directory) -> str:
    try:
        _write_table(experiment, config, variants, directory)
    except SweepFailed as error:
        return str(error)
    return ''


def _write_table(experiment, config, variants, directory):
    report = sweep_report.make(experiment, config, variants, directory)
    if broken := results.failed_variants(variants, directory):
        shown = '; '.join(f'{name}: {reason}' for name, reason in broken.items())
        raise SweepFailed(
            f'{len(broken)} of {len(variants)} variants have no result ({shown}); the others are '
            f'in {directory / "report.html"}; run the same command to repeat the failed ones'
        )
    return directory / 'report.html', report


def _check_shared(config, variants, grouped):
    """Refuse --vectorize vmap where no two variants can share a program."""
    if len(grouped) == len(variants):
        fields = set(variants[0]) - sweep.traceable(config, variants[0])
        raise UsageError(
            f'--vectorize vmap: {", ".join(sorted(fields))} changes shapes or code, so no two '
            'variants share a program; use --vectorize loop'
        )


def _groups(experiment, config, grouped, runtime: Runtime, directory):
    for group_name, group in grouped.items():
        left = processes.broadcast_from_primary(
            lambda group=group: _unfinished(directory, config, group)
        )
        if left:
            if _vectorized(experiment, config, group, _platform(runtime)):
                _vmapped(experiment, config, group, runtime, directory, group_name)
            else:
                _one_by_one(experiment, config, left, runtime, directory)
    return None, Report()


def _platform(runtime: Runtime) -> str:
    return runtime.mesh.devices.flat[0].platform


def _plan(experiment, config, grouped, runtime: Runtime, directory) -> list[dict]:
    """The plan for a launcher: the groups, whether each runs as one program here and whether it could, what is left."""
    plan = []
    for group_name, group in grouped.items():
        as_one, reason = _choice(experiment, config, group, _platform(runtime))
        entry = {
            'group': group_name,
            'vmap': as_one,
            'traceable': _vectorized(experiment, config, group, ''),
            'reason': reason,
            'variants': [{'name': sweep.name(variant), 'fields': variant} for variant in group],
            'left': [sweep.name(variant) for variant in _unfinished(directory, config, group)],
        }
        plan.append(entry)
    return plan


def _vectorized(experiment, config, group, platform: str) -> bool:
    """Whether a group runs as one program: by option, on an accelerator, or for a tiny model.

    Args:
      platform: Platform of the devices; with '' the result is whether one program is possible at all, on any devices.
    """
    return _choice(experiment, config, group, platform)[0]


def _choice(experiment, config, group, platform: str) -> tuple[bool, str]:
    """Whether a group runs as one program, and why."""
    if config.model_parallel > 1 or config.load_compiled:
        option = '--load_compiled' if config.load_compiled else '--model_parallel'
        if config.vectorize == 'vmap':
            raise UsageError(f'{option} needs --vectorize loop')
        return False, f'by {option}'
    if config.vectorize != 'auto':
        return config.vectorize == 'vmap', f'by --vectorize {config.vectorize}'
    if len(group) == 1:
        return False, 'a single variant'
    try:
        bound = sweep.stack(config, group, lambda c: load(experiment, c), experiment.build)
    except UsageError as error:  # not traceable: the loop handles it
        reason = str(error).removeprefix('--vectorize vmap: ').removeprefix('--vectorize vmap ')
        reason = reason.removesuffix('; use --vectorize loop')
        LOG.info('variants run one by one: %s', reason)
        return False, reason
    if platform != 'cpu':
        return True, 'all fields that differ can be traced'
    state = jax.eval_shape(bound.init, bound.key, bound.device_arrays, bound.batch(0))
    size = sweep.size(state) // len(group)
    if size < sweep.TINY:
        return True, f'all fields that differ can be traced, and {size:,} numbers are a tiny state'
    return False, f'on a CPU, vmap is not faster for a state of {size:,} numbers'


def _unfinished(directory, config, group) -> list[dict]:
    return [variant for variant in group if not _finished(directory, config, variant)]


def _finished(directory, config, variant) -> bool:
    """Whether a variant has a report of the same config and needs no second run."""
    place = results.variant_dir(directory, variant)
    variant_config = dataclasses.replace(config, **variant)
    changes = workdir.check_config(place, variant_config, overwrite=False)
    return not changes and (place / 'results.json').exists()


def _one_by_one(experiment, config, group, runtime: Runtime, directory):
    for variant in group:
        LOG.info('variant %s', sweep.name(variant))
        variant_config = dataclasses.replace(config, **variant)
        place = results.variant_dir(directory, variant)
        try:
            single(experiment, variant_config, load(experiment, variant_config), runtime, place)
        except Exception as error:
            # An error of one process alone would leave the others waiting for it.
            alone = not isinstance(error, (processes.CollectiveError, loop.Diverged))
            if isinstance(error, Interrupted) or (alone and runtime.n_processes > 1):
                raise
            if not isinstance(error, (UsageError, loop.Diverged)):
                LOG.error('%s', traceback.format_exc())
            LOG.error('variant %s failed: %s', sweep.name(variant), error)
            if runtime.is_primary:
                results.note_failure(place, error)


def _vmapped(experiment, config, group, runtime: Runtime, directory, group_name):
    """Run one loop over a stacked state, then write each variant's rows and report into its directory."""
    bound = sweep.stack(config, group, lambda c: load(experiment, c), experiment.build)
    place = directory / 'groups' / group_name
    if runtime.is_primary:
        place.mkdir(parents=True, exist_ok=True)
    processes.all_gather('directory')
    LOG.info('%d variants in one program', len(group))
    # The rows of each variant are sent to --log by `finalize`.
    common = dataclasses.replace(config, log='none')
    states = to_local(
        loop.run(
            bound, common, runtime, place, f'{len(group)} variants', metrics=experiment.metrics
        )
    )
    for i, variant in enumerate(group):
        variant_config = dataclasses.replace(config, **variant)
        variant_place = results.variant_dir(directory, variant)
        data = load(experiment, variant_config)
        with workdir.run_lock(variant_place, variant_config, True, runtime):
            if runtime.is_primary:
                _write_rows(read(place / 'metrics.jsonl'), i, variant_place)
            finalize(
                experiment, variant_config, sweep.take(states, i), data, variant_place, runtime
            )


def _write_rows(rows, i: int, place: pathlib.Path):
    """The metrics of variant i of a group."""
    variant_rows = [
        {name: value[i] if isinstance(value, list) else value for name, value in row.items()}
        for row in rows
    ]
    temporary = place / 'metrics.tmp'
    temporary.write_text(''.join(json.dumps(row) + '\n' for row in variant_rows))
    os.replace(temporary, place / 'metrics.jsonl')
