"""The parts of `bench/optim_step.py`."""
