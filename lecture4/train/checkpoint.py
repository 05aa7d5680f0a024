"""Checkpoints: the one file that knows orbax (its v0 CheckpointManager)."""

import contextlib
import logging
import pathlib
import sys
from typing import Any

PyTree = Any
LOG = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names what is left."""


class Checkpoints:
    """The checkpoints of one run: written in the background, the newest `keep` kept."""

    def __init__(self, directory, keep: int = 2):
        import orbax.checkpoint as ocp  # a second of imports: only for a run

        self._ocp = ocp
        self.directory = pathlib.Path(directory).absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep, create=True, enable_async_checkpointing=True
                ),
            )
        except OSError as error:
            raise CheckpointError(
                f'cannot make {self.directory}: {error.strerror}; free the disk or choose another '
                '--workdir'
            ) from error

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree):
        """Copy the state off the devices and write it in the background.

        Errors  CheckpointError where this save, or the one before it, could not be written.
        """
        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(step, args=self._ocp.args.StandardSave(state), force=True)
        except Exception as error:
            raise self._failed(error) from error

    def save_best(self, step: int, state: PyTree, value: float, better: str):
        """Keep this state as the best one, where `value` is."""

    def wait(self):
        """Return when the last save is whole on disk; CheckpointError where it failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: PyTree, log=LOG.warning) -> tuple[int, PyTree] | None:
        """The newest readable state as (step, state), laid out like `like`; None where none is.

        like  a pytree of jax.ShapeDtypeStruct with shardings: the number of devices may differ
              from the one that saved.
        A damaged newest checkpoint is told through `log`, and the one before it is taken.
        Errors  CheckpointError where checkpoints exist and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        reasons = []
        for step in steps:
            try:
                args = self._ocp.args.StandardRestore(like)
                state = self._manager.restore(step, args=args)
            except Exception as error:
                reasons.append(f'step {step}: {_first_line(error)}')
                log(f'checkpoint {self.directory / str(step)} cannot be read: {_first_line(error)}')
                continue
            for newer in steps[: steps.index(step)]:  # else the repaired run could not save them
                self._manager.delete(newer)
            return step, state
        if reasons:
            raise CheckpointError(
                f'no checkpoint in {self.directory} can be read ({"; ".join(reasons)}); start '
                'again with --overwrite'
            )
        return None

    def close(self):
        """Release the threads; errors of a save in flight have been told by `wait`."""
        with contextlib.suppress(Exception):
            self._manager.close()

    def _failed(self, error: Exception) -> CheckpointError:
        steps = list(self._manager.all_steps(read=True))
        left = f'step {max(steps)} in {self.directory}' if steps else 'none'
        return CheckpointError(
            f'a checkpoint could not be written ({_first_line(error)}); last good checkpoint: '
            f'{left}; make room or make the disk writable, then run the same command to resume'
        )


def silence_late_callbacks():
    """After a failed write tensorstore's threads still call an event loop that orbax has closed."""
    usual = sys.unraisablehook

    def hook(unraisable):
        if 'Event loop is closed' not in str(unraisable.exc_value):
            usual(unraisable)

    sys.unraisablehook = hook


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
