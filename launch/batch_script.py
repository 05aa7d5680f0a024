"""Batch scripts for Slurm: of one run, of a sweep as an array, and of the sweep's table."""

import argparse
import pathlib
import re
import shlex

from launch import experiment, plan

PLAIN = re.compile(r'[\w@%+=:,./-]*')  # values of #SBATCH lines that need no quotes


def directives(script: str) -> list[str]:
    """The options of a batch script's #SBATCH lines, as sbatch reads them."""
    lines = [line for line in script.splitlines() if line.startswith('#SBATCH ')]
    return [word for line in lines for word in shlex.split(line)[1:]]


def quoted(value: object) -> str:
    """A value for an #SBATCH line: in double quotes where sbatch would split or unescape it."""
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace('\\', r'\\').replace('"', r'\"') + '"'


def header(
    options: argparse.Namespace,
    directory: pathlib.Path,
    name: str,
    output: str,
    **overrides: int | str,
) -> list[str]:
    """The #SBATCH lines of a batch script.

    Args:
      options: The launcher's options; those of --option come last.
      directory: Directory of the log.
      name: Name of the job.
      output: Name of the log.
      **overrides: Options of sbatch that replace or add to the usual ones.

    Returns:
      The lines, with the interpreter's line first.
    """
    tasks = options.tasks_per_node or options.gpus_per_node or 1
    settings = {
        'job-name': name,
        'nodes': options.nodes,
        'ntasks-per-node': tasks,
        'cpus-per-task': options.cpus_per_task,
        # Per node, not per task: each task sees all GPUs and takes the one of its local index.
        **({'gpus-per-node': options.gpus_per_node} if options.gpus_per_node else {}),
        'time': options.time,
        'signal': f'TERM@{options.notice}',  # to the tasks; B: would signal only the shell
        'requeue': None,
        'open-mode': 'append',  # a requeued job continues its log
        # A percent sign begins a replacement symbol of sbatch.
        'output': str(directory).replace('%', '%%') + f'/{output}',
        'chdir': pathlib.Path.cwd(),
        **overrides,
    }
    for text in options.option:
        key, _, value = text.lstrip('-').partition('=')
        settings[key] = value or None
    return ['#!/bin/bash'] + [
        f'#SBATCH --{key}' + ('' if value is None else f'={quoted(value)}')
        for key, value in settings.items()
        if value != ''
    ]


def step(options: argparse.Namespace, command_text: str) -> list[str]:
    """The lines that run a command in all tasks and then requeue the job or end it.

    Args:
      options: The launcher's options; `restarts` and `prologue` are used.
      command_text: The command, as shell text.

    Returns:
      Lines of shell.
    """
    or_failed = ''
    if options.restarts:
        or_failed = (
            f' || {{ [ $code -ne 0 ] && [ $code -ne 2 ] && '
            f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.restarts} ]; }}'
        )
    prologue = ['set -e', *options.prologue, 'set +e'] if options.prologue else []
    return [
        *prologue,
        # 0: the tasks save in a collective, so the first to exit must not end the others.
        'srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --label ' + command_text,
        'code=$?',
        '# 75: stopped by a signal, and saved',
        f'if [ $code -eq 75 ]{or_failed}; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit $code',
    ]


def render(options: argparse.Namespace, directory: pathlib.Path, line: list[str]) -> str:
    """The batch script of one run.

    Args:
      options: The launcher's options.
      directory: The run directory.
      line: The experiment's command line.

    Returns:
      The script.
    """
    line = on_gpus(options, experiment.with_workdir(line))
    return _text(
        header(options, directory, experiment.name(line), 'slurm-%j.out'),
        step(options, shlex.join(line)),
    )


def on_gpus(options: argparse.Namespace, line: list[str]) -> list[str]:
    """A command line that fails at once if JAX sees no GPU, instead of training on the CPU."""
    return experiment.with_option(line, 'platform', 'gpu') if options.gpus_per_node else line


def render_array(options: argparse.Namespace, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script of a sweep, with an array task for each job.

    Args:
      options: The launcher's options.
      directory: The sweep's directory.
      planned: The sweep's plan.

    Returns:
      The script.
    """
    name = experiment.name(planned.table)
    array = f'0-{len(planned.jobs) - 1}' + (f'%{options.jobs}' if options.jobs else '')
    body = ['case $SLURM_ARRAY_TASK_ID in']
    for i, job in enumerate(planned.jobs):
        body.append(f'{i}) job=({shlex.join(on_gpus(options, job.command))}) ;;')
    body.append('esac')
    lines = header(options, directory, name, 'slurm-%A_%a.out', array=array)
    return _text(lines, [*body, *step(options, '"${job[@]}"')])


def render_table(options: argparse.Namespace, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script that makes a sweep's table, with one task and no GPU.

    Args:
      options: The launcher's options.
      directory: The sweep's directory.
      planned: The sweep's plan.

    Returns:
      The script.
    """
    name = experiment.name(planned.table)
    omitted = ('gpus-per-node', 'signal', 'requeue', 'open-mode')
    one_task = {'nodes': 1, 'ntasks-per-node': 1}
    lines = [
        text
        for text in header(options, directory, f'{name}-table', 'slurm-table-%j.out', **one_task)
        if not text.startswith(tuple(f'#SBATCH --{key}' for key in omitted))
    ]
    prologue = ['set -e', *options.prologue] if options.prologue else []
    return _text(lines, [*prologue, f'JAX_PLATFORMS=cpu exec {shlex.join(planned.table)}'])


def _text(lines: list[str], body: list[str]) -> str:
    return '\n'.join([*lines, '', *body]) + '\n'
