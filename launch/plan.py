"""The jobs of a sweep, as the experiment itself plans them: what can share a program, what is left."""

import json
import os
import subprocess
from typing import NamedTuple

from launch import command


class Job(NamedTuple):
    """One command of a sweep: a group of variants in one program, or one variant."""

    name: str
    words: list[str]


class Plan(NamedTuple):
    """What is left to run, how much there is, and the command that makes the table of it."""

    jobs: list[Job]
    n_variants: int
    n_finished: int
    table: list[str]


def is_sweep(words: list[str]) -> bool:
    """Whether an experiment's command line names a sweep."""
    return any(word.partition('=')[0] in ('--sweep', '--grid') for word in words)


def of(line: list[str], accelerator: bool = False, environ=None) -> Plan:
    """Ask the experiment; it starts nothing, and refuses unknown fields and bad values.

    accelerator  the jobs will run on one, though this host may have none: groups of variants that
                 can be traced then run as one program, unless --vectorize says otherwise.
    Errors       LaunchError with the experiment's own line.
    """
    done = subprocess.run(
        [*line, '--stage', 'plan', '--progress', 'none'],
        cwd=command.ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = (done.stderr.strip() or 'no message').splitlines()
        raise command.LaunchError(f'the sweep cannot be planned: {lines[-1]}')
    groups = json.loads(done.stdout.strip().splitlines()[-1])
    told = command.option(line, 'vectorize') or 'auto'
    line = command.placed(line, swept=True)
    jobs = []
    for group in groups:
        if not group['left']:
            continue
        together = group['vmap'] or (told == 'auto' and accelerator and group['traceable'])
        names = [group['group']] if together else group['left']
        how = 'vmap' if together else 'loop'
        jobs += [Job(name, [*line, '--group', name, '--vectorize', how]) for name in names]
    n_variants = sum(len(group['variants']) for group in groups)
    n_left = sum(len(group['left']) for group in groups)
    return Plan(jobs, n_variants, n_variants - n_left, [*line, '--stage', 'table'])
