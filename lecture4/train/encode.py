"""Encodes a set that may be large, on all devices of all processes: `--stage encode`.

The set is cut into blocks of 4096 rows. Block b belongs to process b modulo their number, which
spreads its rows over its own devices and writes them to codes/FIRST-LAST.npz itself: no collective, no
gathering, and neither file names nor rows depend on how many processes there are. Blocks that are
already there are not computed again, so an encoding broken off goes on where it was.
"""

import json
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.train import workdir
from lecture4.train.checkpoint import Checkpoints
from lecture4.train.config import Config, UsageError
from lecture4.train.distributed import processes
from lecture4.train.distributed.runtime import Interrupted, Runtime, deferred_signals
from lecture4.train.step import AXIS, BoundTask, abstract_state
from lecture4.train.task import Data, PyTree

LOG = logging.getLogger(__name__)
BLOCK = 4096  # rows of a file; also the rows of one call of the encoder
FOLDER = 'codes'


def run(
    encode: Callable[[PyTree, PyTree], PyTree] | None,
    data: Data,
    bound: BoundTask,
    config: Config,
    runtime: Runtime,
    directory: pathlib.Path,
) -> pathlib.Path:
    """Encode data.rows (or data.device_arrays) with the finished run in `directory`.

    Args:
      encode: (state, rows) -> codes, one array or a dict of them, each row independently; the
        experiment's `apply` names it 'encode'. None where it has no encoder.
      data: Where the rows are.
      bound: The run's task.
      config: Its config.
      runtime: Devices and processes.
      directory: The run directory.

    Returns:
      The folder of the codes, the same on every process.

    Raises:
      UsageError: The experiment has no encoder, or the run is not finished.
      Interrupted: After SIGTERM or Ctrl-C, with all finished blocks kept.
    """
    if encode is None:
        raise processes.CollectiveError('--stage encode: this experiment has no encoder')
    if not (directory / 'config.json').exists():
        raise processes.CollectiveError(f'--stage encode: {directory} holds no run; train first')
    rows = data.device_arrays if data.rows is None else data.rows
    with workdir.run_lock(directory, config, False, runtime):
        state = _final_state(bound, config, runtime, directory)
        _blocks(_as_dict(encode), rows, state, runtime, directory / FOLDER)
    return directory / FOLDER


def read(folder) -> dict[str, np.ndarray]:
    """The codes of all rows, in the set's order, as the encoder named them.

    Errors  UsageError where blocks are missing.
    """
    folder = pathlib.Path(folder)
    try:
        index = json.loads((folder / 'index.json').read_text())
    except OSError:
        raise UsageError(f'{folder} is not whole; run --stage encode again') from None
    blocks = [np.load(folder / _file(*span)) for span in _spans(index['rows'], index['block'])]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0].files}


def _file(start: int, stop: int) -> str:
    return f'{start:09d}-{stop:09d}.npz'


def _spans(n: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def _as_dict(encode):
    def run(state, rows):
        codes = encode(state, rows)
        return codes if isinstance(codes, dict) else {'codes': codes}

    return run


def _final_state(bound, config, runtime: Runtime, directory: pathlib.Path) -> PyTree:
    """What the run ended with, as this process's own copy."""
    checkpoints = Checkpoints(directory / 'checkpoints', config.keep)
    try:
        restored = checkpoints.restore(abstract_state(bound, runtime.mesh, bound.batch(0)))
    finally:
        checkpoints.close()
    if restored is None or restored[0] < config.steps:
        done = restored[0] if restored else 0
        raise processes.CollectiveError(
            f'--stage encode: the run in {directory} has done {done} of {config.steps} steps; '
            'run the same command without --stage first'
        )
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), restored[1])


def _blocks(encode, rows: PyTree, state: PyTree, runtime: Runtime, folder: pathlib.Path):
    """Write the blocks of this process; return when those of all are there."""
    n = len(jax.tree.leaves(rows)[0])
    folder.mkdir(exist_ok=True)
    own = [
        device for device in runtime.mesh.devices.flat if device.process_index == runtime.process
    ]
    mesh = Mesh(np.array(own), (AXIS,))
    call = compile_encoder(encode, mesh)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    with deferred_signals(1) as signal_name:
        for start, stop in _spans(n, BLOCK)[runtime.process :: runtime.n_processes]:
            path = folder / _file(start, stop)
            if path.exists():
                continue
            part = jax.tree.map(lambda leaf, a=start, b=stop: leaf[a:b], rows)
            _write(path, encode_rows(call, state, part, mesh.size))
            LOG.info('encoded rows %d to %d of %d', start, stop, n)
            if name := signal_name(start):
                raise Interrupted(f'{name}: {path} is written; run the same command to go on')
    processes.all_gather('encoded')
    if runtime.is_primary:
        workdir.write_json(folder / 'index.json', {'rows': n, 'block': BLOCK})
    processes.all_gather('indexed')


def compile_encoder(encode, mesh: Mesh):
    """encode(state, rows) with the rows spread over a mesh: every device solves for its own."""
    return jax.jit(
        jax.shard_map(
            encode,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,  # solvers' loops begin with constants, which vary over no axis
        )
    )


def encode_rows(call, state: PyTree, rows: PyTree, n_devices: int) -> dict[str, Any]:
    """Codes of at most BLOCK rows; short blocks are filled up, so that one program serves all."""
    n = len(jax.tree.leaves(rows)[0])
    size = -(-BLOCK // n_devices) * n_devices

    def fill(leaf):
        return np.concatenate([leaf, np.repeat(leaf[-1:], size - n, axis=0)])

    return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], call(state, jax.tree.map(fill, rows)))


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]):
    """Whole or not at all."""
    temporary = path.with_suffix('.tmp')
    try:
        with temporary.open('wb') as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f'cannot write {path}: {error.strerror}; make room, then run the same command to go on'
        ) from error
