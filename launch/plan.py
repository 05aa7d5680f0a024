"""The jobs of a sweep as planned by the experiment: which variants share a program, which remain."""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from launch import command, experiment


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
      name: A group of variants that share one program, or one variant.
      command: Its command line.
    """

    name: str
    command: list[str]


class Plan(NamedTuple):
    """The remaining part of a sweep.

    Attributes:
      jobs: Jobs that have to run.
      n_variants: Number of variants of the sweep.
      n_finished: Number of variants that have a result.
      table: Command line that makes the table of all results.
      reasons: For each group with jobs, how its variants run and why.
    """

    jobs: list[Job]
    n_variants: int
    n_finished: int
    table: list[str]
    reasons: tuple[str, ...] = ()


def is_sweep(line: list[str]) -> bool:
    """Whether an experiment's command line names a sweep."""
    return bool(experiment.sweep_name(line))


def of(
    line: list[str], accelerator: bool = False, environ: Mapping[str, str] | None = None
) -> Plan:
    """Plan a sweep by running the experiment with --stage plan; nothing is trained.

    Args:
      line: The experiment's command line.
      accelerator: Whether the jobs will run on an accelerator, which this host may lack: groups of
        variants that can be traced then run as one program, unless --vectorize says otherwise.
      environ: Environment variables to add.

    Returns:
      The plan.

    Raises:
      LaunchError: The experiment refuses the sweep, with its own message.
    """
    result = subprocess.run(
        [*line, '--stage', 'plan', '--progress', 'none', '--platform', 'any'],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        lines = (result.stderr.strip() or 'no message').splitlines()
        raise command.LaunchError(f'the sweep cannot be planned: {lines[-1]}')
    groups = json.loads(result.stdout.strip().splitlines()[-1])
    vectorize = experiment.option(line, 'vectorize') or 'auto'
    line = experiment.with_workdir(line)
    jobs, reasons = [], []
    for group in groups:
        if not group['left']:
            continue
        as_one = group['vmap'] or (vectorize == 'auto' and accelerator and group['traceable'])
        names = [group['group']] if as_one else group['left']
        if len(group['variants']) > 1:
            reason = group.get('reason', '')
            if as_one and not group['vmap']:
                reason = 'on an accelerator, all fields that differ can be traced'
            how = 'in one program (vmap)' if as_one else f'as {_count(len(names), "job")}'
            why = f': {reason}' if reason else ''
            left = _count(len(group['left']), 'variant')
            reasons.append(f'{group["group"]}: {left} {how}{why}')
        mode = 'vmap' if as_one else 'loop'
        jobs += [Job(name, [*line, '--group', name, '--vectorize', mode]) for name in names]
    n_variants = sum(len(group['variants']) for group in groups)
    n_remaining = sum(len(group['left']) for group in groups)
    table = [*line, '--stage', 'table']
    return Plan(jobs, n_variants, n_variants - n_remaining, table, tuple(reasons))


def describe(planned: Plan) -> list[str]:
    """The progress of a sweep, and how and why the rest runs, as lines for the terminal."""
    jobs = f'{_count(len(planned.jobs), "job")} to run'
    return [
        f'{planned.n_finished} of {planned.n_variants} variants are finished, {jobs}',
        *planned.reasons,
    ]


def _count(n: int, noun: str) -> str:
    return f'{n} {noun}' if n == 1 else f'{n} {noun}s'
