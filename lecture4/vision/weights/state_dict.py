"""Find the model's state dict in the file of a training run."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lecture4.vision.weights import inert
from lecture4.vision.weights.lazy_tensor import LazyTensor

StateDict = dict[str, Shaped[np.ndarray, '...']]

# Keys under which training checkpoints hold the state dict, the most telling first.
WRAPPERS = (
    'state_dict',
    'model_state_dict',
    'model_state',
    'model',
    'net',
    'network',
    'module',
    'weights',
    'params',
    'model_ema',
    'ema_state_dict',
    'state_dict_ema',
    'ema',
)
MAX_DEPTH = 8  # largest depth of a state dict inside other dicts


class WeightsError(ValueError):
    """A weights file that cannot be read or does not fit; the message has the fix."""


def find_state_dict(root: Any, path: str | pathlib.Path) -> StateDict:
    """The model's state dict in the contents of a file.

    Args:
      root: Contents of the file: a state dict, nested dicts that contain one, or a whole module.
      path: The file, for error messages.

    Raises:
      WeightsError: There are no tensors, or several state dicts and none of them under a key of WRAPPERS.
    """
    candidates = _candidates(root)
    if not candidates:
        kind = root.full_name if isinstance(root, inert.StandIn) else type(root).__name__
        raise WeightsError(f'{path} holds a {kind} without tensors; expected a state dict')
    wrapped = [keys for keys in candidates if set(keys) <= set(WRAPPERS)]
    if wrapped:
        return _arrays(candidates[_innermost(wrapped)])
    if len(candidates) > 1:
        names = ', '.join(map('.'.join, candidates))
        raise WeightsError(
            f'{path} holds several state dicts ({names}), none of them under one of the keys '
            f'{", ".join(WRAPPERS)}; save one of them alone'
        )
    return _arrays(*candidates.values())


def _innermost(wrapped):
    """The keys that lead to the model: at every level the first key in WRAPPERS."""
    keys = ()
    while True:
        n = len(keys)
        deeper = {other[n] for other in wrapped if len(other) > n and other[:n] == keys}
        if not deeper:
            return keys
        keys = (*keys, min(deeper, key=WRAPPERS.index))


def _candidates(root):
    """Tensors by name of every dict (or module) that contains some, by the keys that lead to it."""
    candidates, seen, pending = {}, set(), [((), root)]
    while pending:
        keys, node = pending.pop(0)
        if id(node) in seen or not isinstance(node, dict) or len(keys) > MAX_DEPTH:
            continue
        seen.add(id(node))
        entries = _module_entries(node) if _is_module(node) else node
        tensors = {k: v for k, v in entries.items() if isinstance(k, str) and _is_tensor(v)}
        if any(
            _n_axes(value) for value in tensors.values()
        ):  # not only a scalar such as a step or an accuracy
            candidates[keys] = tensors
        pending += [((*keys, key), value) for key, value in node.items() if isinstance(key, str)]
    return candidates


def _is_tensor(value):
    return isinstance(value, np.ndarray | LazyTensor)


def _n_axes(value):
    return len(value.size) if isinstance(value, LazyTensor) else value.ndim


def _is_module(node):
    """Whether it is a whole torch.nn.Module."""
    state = getattr(node, 'state', None)
    return isinstance(state, dict) and isinstance(state.get('_modules'), dict)


def _module_entries(module):
    """The state dict of a module: its parameters and persistent buffers, and those of its submodules."""
    entries, seen, pending = {}, set(), [('', module)]
    while pending:
        prefix, module = pending.pop(0)
        if id(module) in seen or not _is_module(module):
            continue
        seen.add(id(module))
        state = module.state
        excluded = state.get('_non_persistent_buffers_set', ())
        for kind in ('_parameters', '_buffers'):
            for name, value in state.get(kind, {}).items():
                if kind == '_parameters' or name not in excluded:
                    entries[f'{prefix}{name}'] = value
        parts = [(f'{prefix}{name}.', part) for name, part in state['_modules'].items()]
        pending = parts + pending
    return entries


def _arrays(tensors) -> StateDict:
    return {
        name: value.array() if isinstance(value, LazyTensor) else value
        for name, value in tensors.items()
    }
