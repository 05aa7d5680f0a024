"""Codes of many signals through one dictionary, each returned with a certificate.

fista works for every penalty and needs no tuning; admm is the faster one for convex penalties, most
of all for badly conditioned dictionaries; coordinate_descent the fastest on a CPU where codes are
mostly zero; ista is the plain reference. All run on a batch of signals at once and stop each signal
by its own duality gap: nothing that happens to one depends on the others (with systems solved on the
support, up to rounding: the fullest support of a tile decides how they are blocked).
"""

from lecture4.sparse.solvers.admm import admm as admm
from lecture4.sparse.solvers.automatic import SOLVERS as SOLVERS
from lecture4.sparse.solvers.automatic import approximate as approximate
from lecture4.sparse.solvers.automatic import encode as encode
from lecture4.sparse.solvers.coordinate_descent import coordinate_descent as coordinate_descent
from lecture4.sparse.solvers.proximal import fista as fista
from lecture4.sparse.solvers.proximal import ista as ista
from lecture4.sparse.solvers.solution import Solution as Solution
