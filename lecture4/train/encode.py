"""Encodes a data set with a finished run, on all devices of all processes: `--stage encode`.

The data set is split into blocks of 4096 rows. Block b belongs to process b modulo the number of processes,
which shards the rows over its devices and writes the codes to codes/FIRST-LAST.npz: no collectives and no
gathering, and neither file names nor rows depend on the number of processes. Blocks that exist are not
computed again, so that an interrupted encoding resumes.
"""

import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

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

Encoder = Callable[[PyTree, PyTree], PyTree]
LOG = logging.getLogger(__name__)
BLOCK = 4096  # rows per file and per call of the encoder
FOLDER = 'codes'


def run(
    encode: Encoder | None,
    data: Data,
    bound: BoundTask,
    config: Config,
    runtime: Runtime,
    directory: pathlib.Path,
) -> pathlib.Path:
    """Encode data.rows (or data.device_arrays) with the finished run in `directory`.

    Args:
      encode: (state, rows [n, ...]) -> codes, an array [n, ...] or a dict of them, each row computed
        independently; the entry 'encode' of the experiment's `apply`. None if there is no such entry.
      data: Data of the experiment.
      bound: The run's task.
      config: The run's config.
      runtime: Devices and processes.
      directory: The run directory.

    Returns:
      The directory of the codes, the same on every process.

    Raises:
      UsageError: The experiment has no encoder, or the run is not finished.
      Interrupted: SIGTERM or Ctrl-C; finished blocks are kept.
    """
    if encode is None:
        raise processes.CollectiveError(
            '--stage encode: the experiment has no encoder; its apply() needs an entry "encode"'
        )
    if not (directory / 'config.json').exists():
        raise processes.CollectiveError(
            f'--stage encode: {directory} contains no run; run the same command without --stage first'
        )
    rows = data.device_arrays if data.rows is None else data.rows
    with workdir.run_lock(directory, config, False, runtime):
        state = _final_state(bound, config, runtime, directory)
        _encode_blocks(as_dict(encode), rows, state, runtime, directory / FOLDER)
    return directory / FOLDER


def read(directory: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the codes of all rows.

    Args:
      directory: The directory that `run` returned.

    Returns:
      {name: array [n, ...]} as the encoder named them, in the order of the data set.

    Raises:
      UsageError: Blocks are missing.
    """
    blocks = list(read_blocks(directory))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def read_blocks(directory: str | os.PathLike) -> Iterator[dict[str, np.ndarray]]:
    """Read the codes of as many rows at a time as a file has, where those of all rows do not fit in memory.

    Args:
      directory: The directory that `run` returned.

    Yields:
      {name: array [rows, ...]}, in the order of the data set.

    Raises:
      UsageError: Blocks are missing.
    """
    directory = pathlib.Path(directory)
    try:
        index = json.loads((directory / 'index.json').read_text())
    except OSError:
        raise UsageError(f'{directory} is incomplete; run --stage encode again') from None
    for span in _spans(index['rows'], index['block']):
        with np.load(directory / _file(*span)) as block:
            yield dict(block)


def _file(start: int, stop: int) -> str:
    return f'{start:09d}-{stop:09d}.npz'


def _spans(n: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def as_dict(encode: Encoder) -> Encoder:
    """The encoder with codes in a dict: those of an encoder that returns one array as 'codes'."""

    def encode_dict(state: PyTree, rows: PyTree) -> dict[str, jax.Array]:
        codes = encode(state, rows)
        return codes if isinstance(codes, dict) else {'codes': codes}

    return encode_dict


def _final_state(
    bound: BoundTask, config: Config, runtime: Runtime, directory: pathlib.Path
) -> PyTree:
    """The final state of the run as numpy arrays, on every process."""
    checkpoints = Checkpoints(directory / 'checkpoints', config.keep)
    try:
        whole = abstract_state(bound, runtime.mesh, bound.batch(0), is_replicated=True)
        restored = checkpoints.restore(whole)
    finally:
        checkpoints.close()
    if restored is None or restored[0] < config.steps:
        n_done = restored[0] if restored else 0
        raise processes.CollectiveError(
            f'--stage encode: the run in {directory} has done {n_done} of {config.steps} steps; '
            'run the same command without --stage first'
        )
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), restored[1])


def _encode_blocks(
    encode: Encoder, rows: PyTree, state: PyTree, runtime: Runtime, directory: pathlib.Path
) -> None:
    """Write the blocks of this process; return when those of all processes are written."""
    n = len(jax.tree.leaves(rows)[0])
    directory.mkdir(exist_ok=True)
    local_devices = [
        device for device in runtime.mesh.devices.flat if device.process_index == runtime.process
    ]
    mesh = Mesh(np.array(local_devices), (AXIS,))
    compiled = compile_encoder(encode, mesh)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    with deferred_signals(1) as received_signal:
        for start, stop in _spans(n, BLOCK)[runtime.process :: runtime.n_processes]:
            path = directory / _file(start, stop)
            if path.exists():
                continue
            block = jax.tree.map(lambda leaf, a=start, b=stop: leaf[a:b], rows)
            _write(path, encode_rows(compiled, state, block, mesh.size))
            LOG.info('encoded rows %d to %d of %d', start, stop, n)
            if name := received_signal(start):
                raise Interrupted(f'{name}: {path} is written; run the same command to resume')
    processes.all_gather('encoded')
    if runtime.is_primary:
        workdir.write_json(directory / 'index.json', {'rows': n, 'block': BLOCK})
    processes.all_gather('indexed')


def compile_encoder(encode: Encoder, mesh: Mesh) -> jax.stages.Wrapped:
    """Compile an encoder with its rows sharded over a mesh: each device solves for its own rows.

    Args:
      encode: (state, rows [n, ...]) -> pytree of arrays [n, ...], each row computed independently.
      mesh: Devices, with axis 'data'.

    Returns:
      The compiled encoder; the number of devices must divide n.
    """
    return jax.jit(
        jax.shard_map(
            encode,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,  # solvers' loops begin with constants, which vary over no axis
        )
    )


def rows_per_call(n_devices: int) -> int:
    """Rows that one call of the compiled encoder encodes on the devices of a process."""
    return -(-BLOCK // n_devices) * n_devices


def encode_rows(encode: Encoder, state: PyTree, rows: PyTree, n_devices: int) -> PyTree:
    """Encode at most BLOCK rows; fewer rows are padded, so that one compiled program serves all blocks.

    Args:
      encode: A compiled encoder.
      state: State of the model.
      rows: Pytree of arrays [n, ...] with n <= BLOCK.
      n_devices: Number of devices of the encoder.

    Returns:
      Pytree of numpy arrays [n, ...].
    """
    n = len(jax.tree.leaves(rows)[0])
    size = rows_per_call(n_devices)

    def pad(leaf: np.ndarray) -> np.ndarray:
        return np.concatenate([leaf, np.repeat(leaf[-1:], size - n, axis=0)])

    return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], encode(state, jax.tree.map(pad, rows)))


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a block atomically."""
    temporary = path.with_suffix('.tmp')
    try:
        with temporary.open('wb') as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f'cannot write {path}: {error.strerror}; free disk space, then run the same command to resume'
        ) from error
