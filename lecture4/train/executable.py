"""Compiled training programs in files, so that a run begins without compiling.

    python -m launch.compile --topology v5e:4x4 --save step.bin -- python -m experiments... OPTIONS
    python -m experiments... OPTIONS --load_compiled step.bin          on such a slice, with the same versions

A file is a line of JSON, which is checked first (versions, platform, devices, a fingerprint of the lowered program),
then JAX's serialized executable, which is a pickle: **load only files that you wrote**, since unpickling executes what
a file says. The tests save and load on CPUs; neither was tried with libtpu, on a TPU or on a pod.
For programs that outlive versions and platforms, see `train.portable`.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform as host
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from lecture4.train.config import UsageError

FORMAT = 1
COMPILERS = {'tpu': 'libtpu', 'gpu': 'jax-cuda12-plugin', 'cuda': 'jax-cuda12-plugin'}


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Compile without the compilation cache.

    On a CPU, a program read from it would be saved incomplete; one for chips that are absent cannot be read.
    """
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update('jax_enable_compilation_cache', enabled)
        compilation_cache.reset_cache()


def save(path: str | os.PathLike[str], lowered: Any, compiled: Any, mesh: Mesh, steps: int) -> None:
    """Write a compiled training program.

    Args:
      path: The file, which is replaced.
      lowered: The `jax.stages.Lowered` form of `train.step.jit_steps`.
      compiled: The same program compiled.
      mesh: The devices that it is compiled for, which need not be attached.
      steps: Number of steps per call.

    Raises:
      UsageError: JAX cannot serialize the program, or the file cannot be written.
    """
    try:
        payload, _, _ = serialize_executable.serialize(compiled)
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f'the program cannot be serialized: {error}') from None
    header = {**_environment(mesh), 'steps': steps, 'program': _fingerprint(lowered)}
    path = pathlib.Path(path).expanduser()
    temporary = path.with_name(path.name + '.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(json.dumps(header).encode() + b'\n' + payload)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f'cannot write {path}: {error.strerror}') from error


def check(path: str | os.PathLike[str], mesh: Mesh) -> int:
    """Compare versions, platform and devices of a file with those of this process; nothing is unpickled.

    Args:
      path: A file of `save`.
      mesh: The devices of the run.

    Returns:
      Number of steps per call of the program.

    Raises:
      UsageError: The file does not exist, is no file of `save`, or was compiled for something else: what differs.
    """
    return _checked(path, mesh)[0]['steps']


def _checked(path: str | os.PathLike[str], mesh: Mesh) -> tuple[dict[str, Any], bytes]:
    header, payload = _read(path)
    for name, value in _environment(mesh).items():
        if header.get(name) != value:
            raise UsageError(
                f'{path} was compiled with {name} {header.get(name)}, and this run has {value}; compile it '
                'again with launch.compile --save, or omit --load_compiled'
            )
    return header, payload


def load(path: str | os.PathLike[str], lowered: Any, mesh: Mesh) -> Any:
    """The compiled form of a lowered program from a file, which must be trusted: it is unpickled.

    Args:
      path: A file of `save`.
      lowered: The program that the run would compile; it must be the one that was saved.
      mesh: The devices of the run.

    Returns:
      The program as a `jax.stages.Compiled`.

    Raises:
      UsageError: As in `check`; or the file has another program; or the compiler refuses it.
    """
    header, payload = _checked(path, mesh)
    if header['program'] != _fingerprint(lowered):
        raise UsageError(
            f'{path} has another program: other options, data shapes or code; compile it again with '
            'launch.compile --save and the options of this run, or omit --load_compiled'
        )
    devices = list(mesh.devices.flat)
    in_tree = jax.tree.structure(lowered.args_info)
    try:
        return serialize_executable.deserialize_and_load(
            payload, in_tree, lowered.out_tree, devices[0].client, devices
        )
    except Exception as error:  # XLA and pickle raise errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f'{path} cannot be loaded: {reason}') from None


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UsageError(
            f'--load_compiled {path} does not exist; write it with launch.compile --save'
        )
    line, _, payload = path.read_bytes().partition(b'\n')
    header: Any = None
    try:
        header = json.loads(line)
        known = header['format'] == FORMAT and isinstance(header['steps'], int)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known or not payload:
        raise UsageError(f'{path} is not a file of launch.compile --save')
    return header, payload


def _environment(mesh: Mesh) -> dict[str, Any]:
    """What has to agree between the process that compiles and the one that loads."""
    device = mesh.devices.flat[0]
    package = COMPILERS.get(device.platform, 'jaxlib')
    try:
        compiler = f'{package} {importlib.metadata.version(package)}'
    except importlib.metadata.PackageNotFoundError:
        compiler = f'{package} (not installed)'
    return {
        'format': FORMAT,
        'jax': jax.__version__,
        'compiler': compiler,
        'platform': device.platform,
        'device': _cpu() if device.platform == 'cpu' else device.device_kind,
        'mesh': dict(mesh.shape),
    }


def _cpu() -> str:
    """Architecture of this CPU and a fingerprint of its instruction sets: XLA uses all that it finds."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    sets = next(
        (line for line in lines if line.startswith(('flags', 'Features'))), host.processor()
    )
    return f'{host.machine()} {hashlib.sha256(sets.encode()).hexdigest()[:8]}'


def _fingerprint(lowered: Any) -> str:
    """Fingerprint of a lowered program: its operations, shapes, shardings and constants."""
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()
