"""Sampling of the spatial transformers at a network's input, as arrays for figures and animations."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from lecture4.vision import spatial_transformer as st

_outline = jax.jit(st.outline, static_argnums=0)
mesh = jax.jit(st.mesh, static_argnums=0)  # compiled once


class Attention(NamedTuple):
    """Outputs of a network with `count` transformers at its input.

    Attributes:
      logits: Logits of the classes.
      theta: Parameters of the transformations.
      warped: Warped images, with the channels of the transformers one after another.
    """

    logits: Float[Array | np.ndarray, '*batch n_classes']
    theta: Float[Array | np.ndarray, '*batch count t']
    warped: Float[Array | np.ndarray, '*batch h w c']


class Views(NamedTuple):
    """Images and the samples taken from them: one row for each transformer and image.

    Attributes:
      images: Inputs.
      outlines: Border of the sampled region, normalized (x, y).
      warped: Samples.
      predictions: Name of the predicted class of each image.
      is_correct: Whether the prediction is the label.
    """

    images: Shaped[np.ndarray, 'n h w c']
    outlines: Float[np.ndarray, 'n p 2']
    warped: Shaped[np.ndarray, 'n h2 w2 c']
    predictions: list[str]
    is_correct: Bool[np.ndarray, ' n']


def attend(
    network: nn.Module, variables: Any, x: Float[Array | np.ndarray, 'n h w c']
) -> Attention:
    """Apply a `spatial_transformer.Transformed` network with transformers at its input.

    Args:
      network: The network.
      variables: Variables of the network.
      x: Images.
    """
    outputs: Any = network.apply(variables, x)
    logits, activations = outputs
    return Attention(logits, activations['input/theta'], activations['input/warped'])


def views(
    kind: st.Kind,
    images: Float[Array | np.ndarray, 'n h w c'],
    attention: Attention,
    class_names: Sequence[str],
    labels: Int[np.ndarray, ' n'],
    objects: int = 1,
) -> Views:
    """The inputs and outputs of each transformer and the predictions, for figures.

    Args:
      kind: Kind of the transformers.
      images: Inputs of the network.
      attention: Outputs of the network.
      class_names: Names of the classes.
      labels: Labels of the images.
      objects: Number of groups of channels, each of which is an image; transformer k is shown on group k.

    Raises:
      ValueError: There are several groups of channels, and more transformers than groups.
    """
    count, channels = attention.theta.shape[-2], images.shape[-1]
    if objects > 1 and count > objects:
        raise ValueError(f'{count} transformers cannot be shown on {objects} groups of channels')
    c = channels // objects
    parts = []
    for k in range(count):
        group = (k % objects) * c
        outline = _outline(kind, attention.theta[..., k, :])
        warped = attention.warped[..., k * channels + group : k * channels + group + c]
        parts.append((images[..., group : group + c], outline, warped))
    predicted = np.argmax(attention.logits, axis=1)
    shown, outlines, warped = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Views(
        shown,
        outlines,
        warped,
        predictions=[str(class_names[i]) for i in predicted] * count,
        is_correct=np.tile(predicted == labels, count),
    )


def meshes(
    kinds: Mapping[str, st.Kind], attention: Mapping[str, Attention]
) -> dict[str, Float[np.ndarray, 'n rows columns 2']]:
    """Input positions of a mesh over the output of the first transformer, for every network with thin plate splines.

    Args:
      kinds: Network -> kind of its transformers.
      attention: Network -> its outputs.
    """
    return {
        name: np.asarray(mesh(kind, attention[name].theta[:, 0]))
        for name, kind in kinds.items()
        if kind == 'tps'
    }
