"""What a new user does first, as shell scripts in an empty directory: `pytest -m slow tests/test_first_tasks.py -rP`.

With -rP the seconds of each are printed.
"""

import csv
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lecture4.data import sources
from tests.launch.running import environ
from tests.test_readme import block

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.slow
SHORT = '--steps 20 --batch_size 16 --progress none'
# Run the script of a job at once, as the only task of it.
SCHEDULER = {
    'sbatch': 'cat > job.sh && SLURM_JOB_ID=1 SLURM_CPUS_PER_TASK=1 bash job.sh >&2 && echo 1',
    'srun': 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
}


@pytest.fixture
def here(tmp_path):
    """A directory with own photographs: all in photographs/, crops in own/CLASS/ and others in new/."""
    rng = np.random.default_rng(0)
    for n, photo in enumerate(sources.load('photos').images[:3]):
        for name in ('photographs', f'own/class {n}', 'new', 'programs'):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(tmp_path / f'photographs/{n}.jpg', quality=95)
        for i in range(24):
            y, x = (rng.integers(0, size - 64) for size in photo.shape[:2])
            folder = 'new' if i < 4 else f'own/class {n}'
            Image.fromarray(photo[y : y + 64, x : x + 48 + i]).save(
                tmp_path / folder / f'{n}-{i}.png'
            )
    for name, text in SCHEDULER.items():
        program = tmp_path / 'programs' / name
        program.write_text(f'#!/bin/bash\n{text}\n')
        program.chmod(0o755)
    return tmp_path


def script(here, text):
    """Run lines of shell that use `python`; returns what they print."""
    path = os.pathsep.join([str(here / 'programs'), str(pathlib.Path(sys.executable).parent)])
    env = environ(PYTHONPATH=str(ROOT), PATH=f'{path}{os.pathsep}{os.environ["PATH"]}')
    start = time.monotonic()
    command = ['bash', '-euo', 'pipefail', '-c', text]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    print(f'{time.monotonic() - start:.0f} s')
    return done.stdout


def test_own_photographs_to_codes(here):
    code = block('codes').replace("'photos'", "'dir:photographs'")
    (here / 'codes.py').write_text(
        f'{code}\nprint(solution.codes.shape, solution.converged.all())\n'
    )
    assert script(here, 'python codes.py').split() == ['(1000,', '128)', 'True']


def test_own_folder_to_a_fine_tuned_network_to_predictions(here):
    """From a network of the textures, since no published weights are at hand."""
    train, predict = (
        block('predict').replace('PHOTOS', 'own').replace('dir:NEW', 'dir:new').splitlines()
    )
    network = '--source textures --split_crops_left_right --image_size 32 --workdir runs/textures'
    script(
        here,
        f'python -m experiments.convnets.image_classification {network} {SHORT}\n'
        f'{train} --init runs/textures --new_head {SHORT}\n{predict}',
    )
    with (here / 'runs/own/predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row['class_1'] for row in rows} <= {f'class {n}' for n in range(3)}


def test_own_variational_autoencoder_to_samples(here):
    options = '--source dir:own --image_size 16 --held_out 0.1 --workdir runs/vae --steps 200'
    (here / 'sample.py').write_text(
        'import jax\nfrom lecture4 import train\n'
        "print(train.load('runs/vae').sample(jax.random.key(0), 5).shape)\n"
    )
    printed = script(
        here,
        f'python -m experiments.autoencoders.variational {options} --progress none\npython sample.py',
    )
    assert printed.splitlines()[-1] == '(5, 16, 16, 1)'


def test_a_sweep_to_its_table(here):
    grid = '--grid memory_size=5,20 seed=0,1 --preset smoke --workdir runs/sweep'
    printed = script(
        here, f'python -m launch.sweep -- python -m experiments.autoencoders.sparse_kl {grid}'
    )
    assert 'Best of 2 settings' in printed and 'report: runs/sweep/report.html' in printed
    with (here / 'runs/sweep/sweep.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_pasted_dry_run_to_results(here):
    run = 'python -m experiments.autoencoders.sparse_kl --preset smoke --workdir "runs/a b"'
    script(
        here, f'python -m launch.slurm --dry_run --shared . -- {run} > pasted.sh\nbash pasted.sh'
    )
    assert (here / 'runs/a b/results.json').is_file()
