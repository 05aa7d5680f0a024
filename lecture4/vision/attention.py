"""What the transformers at a network's input attend to, as arrays for figures and animations."""

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
      warped: Warped images, the channels of one transformer after those of another.
    """

    logits: Float[Array | np.ndarray, '*batch n_classes']
    theta: Float[Array | np.ndarray, '*batch count t']
    warped: Float[Array | np.ndarray, '*batch h w c']


class Views(NamedTuple):
    """Images next to what is read of them: one row for each transformer and image.

    Attributes:
      images: Inputs.
      outlines: Border of what is sampled, normalized (x, y).
      warped: Samples.
      predictions: Name of the predicted class of each.
      is_correct: Whether it is the label.
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
      variables: Its variables.
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
    """The inputs and outputs of each transformer and the predictions, to be drawn.

    Args:
      kind: Kind of the transformers.
      images: What the network saw.
      attention: What it made of them.
      class_names: One per class.
      labels: Labels of the images.
      objects: Number of groups of channels that hold an image each; transformer k is shown on group k.

    Raises:
      ValueError: More transformers than groups of channels, where there are several groups.
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
    """Where the first transformer of every network with thin plate splines reads a mesh over its output.

    Args:
      kinds: Network -> kind of its transformers.
      attention: Network -> what it made of images.
    """
    return {
        name: np.asarray(mesh(kind, attention[name].theta[:, 0]))
        for name, kind in kinds.items()
        if kind == 'tps'
    }
