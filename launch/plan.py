"""The jobs of a sweep as the experiment plans them: which variants share a program, which remain."""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from launch import command


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
      name: A group of variants that share one program, or one variant.
      command: Its command line.
    """

    name: str
    command: list[str]


class Plan(NamedTuple):
    """What remains of a sweep.

    Attributes:
      jobs: Jobs that have to run.
      n_variants: Number of variants of the sweep.
      n_finished: How many of them have a result.
      table: Command line that makes the table of all results.
    """

    jobs: list[Job]
    n_variants: int
    n_finished: int
    table: list[str]


def is_sweep(line: list[str]) -> bool:
    """Whether an experiment's command line names a sweep."""
    return bool(command.sweep_name(line))


def of(
    line: list[str], accelerator: bool = False, environ: Mapping[str, str] | None = None
) -> Plan:
    """Plan a sweep, by asking the experiment; nothing is trained.

    Args:
      line: The experiment's command line.
      accelerator: Whether the jobs will run on an accelerator, which this host may lack: groups of
        variants that can be traced then run as one program, unless --vectorize says otherwise.
      environ: Environment variables to add.

    Returns:
      The plan.

    Raises:
      LaunchError: The experiment refuses the sweep; the message is its own.
    """
    result = subprocess.run(
        [*line, '--stage', 'plan', '--progress', 'none'],
        cwd=command.ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        lines = (result.stderr.strip() or 'no message').splitlines()
        raise command.LaunchError(f'the sweep cannot be planned: {lines[-1]}')
    groups = json.loads(result.stdout.strip().splitlines()[-1])
    vectorize = command.option(line, 'vectorize') or 'auto'
    line = command.with_workdir(line)
    jobs = []
    for group in groups:
        if not group['left']:
            continue
        as_one = group['vmap'] or (vectorize == 'auto' and accelerator and group['traceable'])
        names = [group['group']] if as_one else group['left']
        mode = 'vmap' if as_one else 'loop'
        jobs += [Job(name, [*line, '--group', name, '--vectorize', mode]) for name in names]
    n_variants = sum(len(group['variants']) for group in groups)
    n_remaining = sum(len(group['left']) for group in groups)
    return Plan(jobs, n_variants, n_variants - n_remaining, [*line, '--stage', 'table'])


def progress(planned: Plan) -> str:
    """How much of a sweep is done, as a line for the terminal."""
    return (
        f'{planned.n_finished} of {planned.n_variants} variants are finished, '
        f'{len(planned.jobs)} jobs to run'
    )
