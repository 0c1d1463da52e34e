"""Training steps with optimizers around optimizers, beside the base optimizer alone and the peers, in one run.

python bench/wrappers.py [--cases averages,flat-minima,...] [--repeats 11] [--out DIR]

A step is the whole of it: forward passes, backward passes and the weights' move, all on one base optimizer, torch's.
"""

from beside.main import main
from wrapped import averages, closures, curvature, flatness, kronecker, memory

CASES = (*averages.CASES, *flatness.CASES, *kronecker.CASES, *curvature.CASES, *closures.CASES, *memory.CASES)

if __name__ == "__main__":
    main("wrappers", "Optimizers around optimizers", CASES, ("pytorch_optimizer", "heavyball", "torch-optimi", "torchzero", "singd"))
