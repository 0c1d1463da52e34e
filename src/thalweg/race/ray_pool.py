"""Trials on an existing Ray cluster. The machines need thalweg and the same version of torch; nothing else is shared with them."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import replace
from typing import Any

from thalweg.race.local import PoolError, packed, run_packed
from thalweg.race.records import Trial
from thalweg.race.trial import Job

_NOBODY = "No Ray cluster answers at {!r} ({}); start one with `ray start --head`, or correct the address."
CONNECT = 10.0  # seconds


class RayPool:
    """One CPU of the cluster for each trial.

    Args:
        address: the cluster, as `ray.init` takes it: "auto", "HOST:PORT" or "ray://HOST:PORT".

    Raises:
        PoolError: Ray is not installed, or no cluster answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise PoolError('Running on a cluster needs Ray: `pip install "thalweg[ray]"`.') from error
        self._ray = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            _answers(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray has many kinds for this
                raise PoolError(_NOBODY.format(address, f"{type(error).__name__}: {error}".partition("\n")[0])) from error
        self._remote = ray.remote(num_cpus=1, max_retries=2)(run_packed)
        self._running: dict[Any, Trial] = {}

    @property
    def free(self) -> int:
        """How many jobs can be submitted now: the cluster's CPUs, which may change while it runs."""
        return max(0, int(self._ray.cluster_resources().get("CPU", 0)) - len(self._running))

    @property
    def idle(self) -> bool:
        """Whether no job runs."""
        return not self._running

    def submit(self, job: Job) -> None:
        """Send the job to the cluster."""
        self._running[self._remote.remote(job.trial.key, packed(job))] = job.trial

    def collect(self, timeout: float) -> list[Trial]:
        """The trials that have ended; waits up to `timeout` seconds for the first."""
        if not self._running:
            time.sleep(timeout)
            return []
        first, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0) if first else ([], [])
        return [self._receive(reference) for reference in ready]

    def close(self) -> None:
        """Cancel what still runs; leave the cluster up."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        if self._mine:
            self._ray.shutdown()

    def _receive(self, reference: Any) -> Trial:
        planned = self._running.pop(reference)
        try:
            ended: Trial = self._ray.get(reference)
        except self._ray.exceptions.OutOfMemoryError as error:
            return replace(planned, status="out of memory", message=str(error).partition("\n")[0])
        except self._ray.exceptions.RayError as error:  # the machine or the process went, and again when tried anew
            return replace(planned, status="failed", message=f"{type(error).__name__}: {error}".partition("\n")[0])
        return replace(ended, method=planned.method, stage=planned.stage, index=planned.index, seed=planned.seed, hyper=planned.hyper)


def _answers(address: str) -> None:
    """Refuse an address where nobody listens at once: Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT).close()
    except (OSError, ValueError) as error:
        raise PoolError(_NOBODY.format(address, error)) from error
