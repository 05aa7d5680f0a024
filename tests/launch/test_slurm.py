"""A real Slurm on one node: a run of two tasks, a requeued run, a sweep as an array."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest

from tests.launch.running import TOY, environ, rows, run, table

UP = pathlib.Path(__file__).with_name('slurm_loopback.sh')
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which('slurmctld') and shutil.which('munged')),
        reason='as root, with: apt-get install slurm-wlm munge',
    ),
]
SIZE = ['--cpus_per_task', '1', '--time', '0:10:00', '--shared', tempfile.gettempdir()]


@pytest.fixture(scope='module')
def slurm():
    folder = pathlib.Path(tempfile.mkdtemp(prefix='slurm-'))
    folder.chmod(0o755)  # for munge's own user
    subprocess.run([UP, folder, 'up'], check=True, env=environ(SLURM_CPUS='2'))
    yield environ(SLURM_CONF=str(folder / 'slurm.conf'))
    subprocess.run(
        ['scancel', '--full', '--user=root'], env=environ(SLURM_CONF=str(folder / 'slurm.conf'))
    )
    subprocess.run([UP, folder, 'down'], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def submit(env, *argv):
    code, out, errors = run(*argv, env=env)
    assert code == 0, errors
    return re.findall(r'job (\d+), output in (.+)', out)


def state(env, job):
    output = subprocess.run(
        ['scontrol', 'show', 'job', job], env=env, capture_output=True, text=True
    ).stdout
    return set(re.findall(r'JobState=(\w+)', output)), max(
        map(int, re.findall(r'Restarts=(\d+)', output))
    )


def wait(env, job, seconds=300):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        states, restarts = state(env, job)
        if not states & {'PENDING', 'RUNNING', 'COMPLETING', 'REQUEUED'}:
            return states, restarts
        time.sleep(0.5)
    raise AssertionError(f'job {job} is {state(env, job)} after {seconds} s')


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    directory = tmp_path_factory.mktemp('alone')
    code, _, errors = run('tests.train.toy', *TOY[3:], '--progress', 'none', '--workdir', directory)
    assert code == 0, errors
    return rows(directory)


def close(ours, theirs):
    assert [row['step'] for row in ours] == [row['step'] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def test_two_tasks_are_requeued_after_sigterm_and_finish(slurm, tmp_path, alone):
    toy = [*TOY, '--delay', '0.3', '--workdir', tmp_path]
    argv = ['launch.slurm', '--tasks_per_node', '2', *SIZE, '--', *toy]
    ((job, output),) = submit(slurm, *argv)
    log = pathlib.Path(output)
    for _ in range(600):
        if log.exists() and 'toy 4/30' in log.read_text():
            break
        time.sleep(0.2)
    # What Slurm does at --signal=TERM@: a signal to the tasks, not to the shell.
    subprocess.run(['scancel', '--signal=TERM', f'{job}.0'], env=slurm, check=True)
    states, restarts = wait(slurm, job)
    text = log.read_text()
    assert (states, restarts) == ({'COMPLETED'}, 1), text
    saved = re.findall(r'SIGTERM: saved step (\d+)', text)
    assert len(saved) == 2 and len(set(saved)) == 1, text
    assert f'restored step {saved[0]}' in text
    assert 'process 1 of 2' in text
    close(rows(tmp_path), alone)


def test_the_time_limit_requeues_too(slurm, tmp_path):
    """A limit of two minutes, with the signal after one: a start takes 20 s on a busy machine."""
    toy = [*TOY, '--delay', '1', '--steps', '80', '--workdir', tmp_path]
    argv = ['launch.slurm', '--tasks_per_node', '1', *SIZE, '--time', '0:02:00']
    ((job, output),) = submit(slurm, *argv, '--notice', '60', '--', *toy)
    states, restarts = wait(slurm, job, 600)
    text = pathlib.Path(output).read_text()
    assert states == {'COMPLETED'} and restarts >= 1, text
    assert 'SIGTERM: saved step' in text and 'restored step' in text
    assert [row['step'] for row in rows(tmp_path) if 'loss' in row] == list(range(1, 81))


def test_a_sweep_is_an_array(slurm, tmp_path):
    toy = [*TOY, '--preset', 'smoke', '--grid', 'hidden=2,3', 'weight=0,0.1', '--workdir', tmp_path]
    argv = ['launch.sweep', '--slurm', ' '.join(SIZE), '--jobs', '2', '--', *toy]
    (array, _), (last, output) = submit(slurm, *argv)
    assert wait(slurm, array)[0] == {'COMPLETED'}
    assert wait(slurm, last)[0] == {'COMPLETED'}
    assert [row['hidden'] for row in table(tmp_path)] == ['2', '2', '3', '3']
    assert 'report: ' in pathlib.Path(output).read_text()
    code, _, errors = run('launch.sweep', '--jobs', '1', '--', *toy, '--stage', 'all')
    assert code == 0 and '4 of 4 variants are finished, 0 jobs to run' in errors


def test_a_mistake_is_not_requeued(slurm, tmp_path):
    """Of the data, which only the job reads."""
    argv = ['launch.slurm', '--restarts', '3', *SIZE, '--', *TOY, '--workdir', tmp_path]
    ((job, output),) = submit(slurm, *argv, '--examples', '0')
    states, restarts = wait(slurm, job)
    assert (states, restarts) == ({'FAILED'}, 0)
    assert '--examples 0: a set needs at least 1' in pathlib.Path(output).read_text()


def test_names_with_spaces_and_quotes_reach_the_job(slurm, tmp_path):
    where = tmp_path / 'a "b" \'c\' 100% #1'
    argv = ['launch.slurm', '--option', 'comment=two words', *SIZE, '--', *TOY, '--steps', '2']
    ((job, output),) = submit(slurm, *argv, '--workdir', where)
    assert wait(slurm, job)[0] == {'COMPLETED'}, pathlib.Path(output).read_text()
    assert (where / f'slurm-{job}.out').exists() and (where / 'report.html').exists()
