"""launch.sweep: a process for each job, then one table."""

import signal
import time

import pytest

from lecture4.train import cli
from lecture4.train.experiment import from_module
from tests.launch.running import TOY, run, start, table
from tests.train import toy

EXPERIMENT = from_module(toy)
SMOKE = ['--preset', 'smoke', '--progress', 'none', '--noise', '0.1']


@pytest.mark.slow
def test_jobs_give_the_same_table_as_one_process(tmp_path):
    """hidden=2 in one program, hidden=3 and 4 with one variant left each: three jobs."""
    argv = ['--grid', 'hidden=2,3', 'weight=0,0.1', *SMOKE]
    alone = [*argv, '--vectorize', 'loop', '--workdir', str(tmp_path / 'alone')]
    cli.run(EXPERIMENT, cli.parse(EXPERIMENT, alone))
    words = ['--jobs', '2', '--', *TOY[:3], *argv, '--workdir', tmp_path / 'jobs']
    code, out, errors = run('launch.sweep', *words)
    assert code == 0, errors
    assert '0 of 4 variants are finished, 2 jobs to run' in errors
    assert 'report: ' in out
    for ours, theirs in zip(table(tmp_path / 'jobs'), table(tmp_path / 'alone'), strict=True):
        for name in ('hidden', 'weight'):
            assert ours[name] == theirs[name]
        for name in ('loss', 'final_error'):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6)
    code, _, errors = run('launch.sweep', *words)
    assert code == 0 and '4 of 4 variants are finished, 0 jobs to run' in errors


@pytest.mark.slow
def test_failed_variants_are_named_and_repeated(tmp_path):
    argv = [*TOY[:3], '--grid', 'learning_rate=0.05,1e30', *SMOKE, '--vectorize', 'loop']
    words = ['--jobs', '2', '--', *argv, '--workdir', tmp_path]
    code, _, errors = run('launch.sweep', *words)
    assert code == 1
    assert '1 of 2 variants have no result (learning_rate=1e+30: ' in errors.splitlines()[-1]
    assert [row['final_error'] != '' for row in table(tmp_path)] == [True, False]
    _, _, errors = run('launch.sweep', *words)
    assert '1 of 2 variants are finished, 1 job to run' in errors


@pytest.mark.slow
def test_an_interrupted_sweep_resumes(tmp_path):
    argv = [*TOY[:3], '--grid', 'seed=0,1', '--progress', 'none', '--delay', '0.1']
    words = ['--jobs', '2', '--', *argv, '--vectorize', 'loop', '--workdir', tmp_path]
    process = start('launch.sweep', *words)
    for _ in range(1200):
        if len(list(tmp_path.glob('variants/*/metrics.jsonl'))) == 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert 'interrupted; run the same command to resume' in errors
    code, _, errors = run('launch.sweep', *words)
    assert code == 0, errors
    assert [float(row['step']) for row in table(tmp_path)] == [30, 30]
