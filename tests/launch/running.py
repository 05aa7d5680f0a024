"""Runs launchers as a user does, in subprocesses, and reads their output."""

import csv
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
TOY = ['python', '-m', 'tests.train.toy', '--noise', '0.1']


def environ(**more):
    """Environment variables for CPU devices and the compilation cache of the tests."""
    settings = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'tests'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
    }
    return {**os.environ, **settings, **more}


def start(module, *argv, env=None):
    return subprocess.Popen(
        [sys.executable, '-m', module, *map(str, argv)],
        cwd=ROOT,
        env=env or environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(module, *argv, env=None, timeout=240):
    """(exit code, stdout, stderr)."""
    process = start(module, *argv, env=env)
    out, errors = process.communicate(timeout=timeout)
    return process.returncode, out, errors


def rows(directory):
    """metrics.jsonl without the times."""
    records = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    for row in records:
        del row['seconds']
    return records


def table(directory):
    with (directory / 'sweep.csv').open() as file:
        return list(csv.DictReader(file))
