"""Checkpoints: the only module that uses orbax (its v0 CheckpointManager)."""

import contextlib
import logging
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

PyTree = Any
LOG = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names those that remain."""


class Checkpoints:
    """The checkpoints of one run, written in the background.

    The newest `keep` checkpoints are kept and, apart from these, the best one by a metric, in the
    subdirectory `best`. Every process of a run makes the same calls.

    Attributes:
      directory: Where the checkpoints are, an absolute path.
    """

    def __init__(self, directory: str | os.PathLike, keep: int = 2):
        """Create the directory, or open the one of an earlier run.

        Args:
          directory: Where the checkpoints are.
          keep: Number of checkpoints to keep, the newest ones; the best one is not counted.

        Raises:
          CheckpointError: The directory cannot be created.
        """
        import orbax.checkpoint as ocp  # takes a second to import, and only runs need it

        self._ocp = ocp
        self.directory = pathlib.Path(directory).absolute()
        self._manager = self._open(self.directory, max_to_keep=keep)
        self._best_manager: Any = None
        self._best: tuple[int, float] | None = None  # from disk, then of the last `save_best`

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """(step, value) of the best checkpoint, as `save_best` stored it; None where there is none."""
        if self._best is None and (manager := self._open_best(create=False)) is not None:
            step = manager.best_step()
            if step is not None:
                self._best = step, float(manager.metrics(step)['value'])
        return self._best

    def save(self, step: int, state: PyTree) -> None:
        """Copy a state off the devices and write it in the background.

        Args:
          step: Number of steps done; a step that is already saved is not saved again.
          state: Pytree of arrays.

        Raises:
          CheckpointError: This save or the previous one could not be written.
        """
        self._save(self._manager, step, state)

    def save_best(
        self, step: int, state: PyTree, value: float, better: Literal['higher', 'lower']
    ) -> bool:
        """Save a state if its metric is better than that of the best checkpoint so far.

        The value to compare with is read from disk, so that it survives a restart.

        Args:
          step: Number of steps done.
          state: Pytree of arrays.
          value: The metric that decides; a value that is not finite is never saved.
          better: Direction of the metric.

        Returns:
          Whether the state was saved.

        Raises:
          CheckpointError: This save or the previous one could not be written.
          ValueError: `better` is neither 'higher' nor 'lower'.
        """
        if better not in ('higher', 'lower'):
            raise ValueError(f"better={better!r}; expected 'higher' or 'lower'")
        sign = 1.0 if better == 'higher' else -1.0
        best = self.best()
        if not math.isfinite(value) or (best is not None and sign * value <= sign * best[1]):
            return False
        manager = self._open_best(create=True)
        self._save(manager, step, state, {'value': float(value), 'score': sign * float(value)})
        self._best = step, float(value)
        return True

    def wait(self) -> None:
        """Return when all saves are complete on disk.

        Raises:
          CheckpointError: A save failed.
        """
        for manager in filter(None, (self._manager, self._best_manager)):
            try:
                manager.wait_until_finished()
                manager.check_for_errors()
            except Exception as error:
                raise self._write_error(error) from error

    def restore(
        self, abstract_state: PyTree, log: Callable[[str], object] = LOG.warning
    ) -> tuple[int, PyTree] | None:
        """Restore the newest readable checkpoint.

        A damaged checkpoint is reported through `log` and deleted, and the previous one is restored.

        Args:
          abstract_state: Pytree of jax.ShapeDtypeStruct with shardings; the number of devices may differ
            from that of the run that saved.
          log: Receives the message about a damaged checkpoint.

        Returns:
          (step, state), the state laid out as `abstract_state`; None where there is no checkpoint.

        Raises:
          CheckpointError: Checkpoints exist and none can be read.
        """
        return self._restore(self._manager, abstract_state, log)

    def restore_best(
        self, abstract_state: PyTree, log: Callable[[str], object] = LOG.warning
    ) -> tuple[int, PyTree] | None:
        """Restore the checkpoint that `save_best` saved; arguments, result and errors as in `restore`."""
        manager = self._open_best(create=False)
        return None if manager is None else self._restore(manager, abstract_state, log)

    def close(self) -> None:
        """Release the threads; errors of a save in progress have been raised by `wait`."""
        for manager in filter(None, (self._manager, self._best_manager)):
            with contextlib.suppress(Exception):
                manager.close()

    def _open(self, directory: pathlib.Path, **options: Any) -> Any:
        try:
            return self._ocp.CheckpointManager(
                directory,
                options=self._ocp.CheckpointManagerOptions(
                    create=True, enable_async_checkpointing=True, **options
                ),
            )
        except OSError as error:
            raise CheckpointError(
                f'cannot create {directory}: {error.strerror}; free disk space or choose another '
                '--workdir'
            ) from error

    def _open_best(self, create: bool) -> Any:
        """The manager of the best checkpoint: orbax keeps the one with the highest score."""
        directory = self.directory / 'best'
        if self._best_manager is None and (create or directory.exists()):
            self._best_manager = self._open(
                directory,
                max_to_keep=1,
                best_fn=lambda metrics: metrics['score'],
                best_mode='max',
                # Both managers may save one step at the same time: with the same names of their
                # barriers, several processes would wait for one another forever.
                multiprocessing_options=self._ocp.options.MultiprocessingOptions(
                    barrier_sync_key_prefix='best'
                ),
            )
        return self._best_manager

    def _save(self, manager: Any, step: int, state: PyTree, metrics: dict | None = None) -> None:
        if step in manager.all_steps():
            return
        try:
            args = self._ocp.args.StandardSave(state)
            manager.save(step, args=args, metrics=metrics, force=True)
        except Exception as error:
            raise self._write_error(error) from error

    def _restore(
        self, manager: Any, abstract_state: PyTree, log: Callable[[str], object]
    ) -> tuple[int, PyTree] | None:
        steps = sorted(manager.all_steps(), reverse=True)
        reasons = []
        for step in steps:
            try:
                args = self._ocp.args.StandardRestore(abstract_state)
                state = manager.restore(step, args=args)
            except Exception as error:
                reasons.append(f'step {step}: {_first_line(error)}')
                path = pathlib.Path(manager.directory) / str(step)
                log(f'checkpoint {path} cannot be read: {_first_line(error)}')
                continue
            for newer in steps[: steps.index(step)]:  # else the resumed run could not save them
                manager.delete(newer)
            return step, state
        if reasons:
            raise CheckpointError(
                f'no checkpoint in {manager.directory} can be read ({"; ".join(reasons)}); start '
                'again with --overwrite'
            )
        return None

    def _write_error(self, error: Exception) -> CheckpointError:
        steps = list(self._manager.all_steps(read=True))
        last = f'step {max(steps)} in {self.directory}' if steps else 'none'
        return CheckpointError(
            f'a checkpoint could not be written ({_first_line(error)}); last good checkpoint: '
            f'{last}; free disk space or make the disk writable, then run the same command to resume'
        )


def read(path: str | os.PathLike) -> PyTree:
    """Read the tree of one checkpoint, RUN/checkpoints/STEP, whose structure need not be known.

    Returns:
      Nested dicts and lists of NumPy arrays: named tuples are dicts.

    Raises:
      CheckpointError: The checkpoint is missing or cannot be read.
    """
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    place = pathlib.Path(path).absolute() / 'default'
    if not place.is_dir():
        raise CheckpointError(f'{path} is not a checkpoint; expected RUN/checkpoints/STEP')
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = checkpointer.metadata(place).item_metadata.tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(place, args=ocp.args.PyTreeRestore(restore_args=arguments))
    except Exception as error:
        raise CheckpointError(f'checkpoint {path} cannot be read: {_first_line(error)}') from error


def silence_late_callbacks() -> None:
    """Hide errors of tensorstore threads that call an event loop which orbax has closed.

    They appear after a failed write, which `Checkpoints` has reported by then.
    """
    default_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if 'Event loop is closed' not in str(unraisable.exc_value):
            default_hook(unraisable)

    sys.unraisablehook = hook


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
