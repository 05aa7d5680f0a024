"""Codes of many signals through one dictionary, each returned with a certificate.

encode chooses a solver, and finishes the signals that it leaves. coordinate_descent is the fastest on a CPU;
admm on an accelerator, and for other convex penalties; fista works for every penalty and needs no
tuning; feature_sign is exact; matching_pursuit takes a number of atoms in place of a penalty
weight; ista is the basic reference. path follows a descending weight. All run on a batch of signals
at once and stop each signal by its own duality gap: no signal influences another (with systems solved on the support,
up to rounding: the largest support of a group determines how they are blocked). All are jitted internally, once per
shapes and static options, and can be used under jit, vmap, pmap and shard_map.
"""

from lecture4.sparse.solvers.admm import admm as admm
from lecture4.sparse.solvers.automatic import SOLVERS as SOLVERS
from lecture4.sparse.solvers.automatic import approximate as approximate
from lecture4.sparse.solvers.automatic import choose as choose
from lecture4.sparse.solvers.automatic import encode as encode
from lecture4.sparse.solvers.coordinate_descent import coordinate_descent as coordinate_descent
from lecture4.sparse.solvers.feature_sign import feature_sign as feature_sign
from lecture4.sparse.solvers.path import path as path
from lecture4.sparse.solvers.path import weights_from_max as weights_from_max
from lecture4.sparse.solvers.proximal import fista as fista
from lecture4.sparse.solvers.proximal import ista as ista
from lecture4.sparse.solvers.pursuit import matching_pursuit as matching_pursuit
from lecture4.sparse.solvers.solution import Solution as Solution
from lecture4.sparse.solvers.solution import summarize as summarize
from lecture4.sparse.solvers.solution import warn_if_unconverged as warn_if_unconverged
