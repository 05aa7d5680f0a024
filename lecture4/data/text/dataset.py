"""The data set that every source of sentences returns."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32


class Sentences(NamedTuple):
    """Sentences as tuples of words, one label each, and the class names.

    Attributes:
      texts: n tuples of words; () if a text has no word.
      labels: [n], values in 0..len(class_names) - 1.
      class_names: Names of the classes.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: Int32[np.ndarray, ' n']
    class_names: tuple[str, ...]
