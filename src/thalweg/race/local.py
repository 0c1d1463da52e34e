"""Where trials run: in this process, or in processes of this machine. `race.ray_pool` has the same interface for a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Protocol

from thalweg.race.records import Trial
from thalweg.race.trial import Job, run_job

SIGKILL = -9


class PoolError(RuntimeError):
    """Trials cannot be sent anywhere; the message says why and what to do."""


class Pool(Protocol):
    """Runs jobs, several at once. The store is the coordinator's affair; a pool only runs."""

    @property
    def free(self) -> int:
        """How many jobs can be submitted now."""

    @property
    def idle(self) -> bool:
        """Whether no job runs."""

    def submit(self, job: Job) -> None:
        """Start a job; only while `free` is positive."""

    def collect(self, timeout: float) -> list[Trial]:
        """The trials that have ended; waits up to `timeout` seconds for the first."""

    def close(self) -> None:
        """Stop everything that still runs."""


def packed(job: Job) -> bytes:
    """The job as bytes.

    Raises:
        PoolError: it cannot be sent.
    """
    try:
        return pickle.dumps(job)
    except Exception as error:  # pickle raises many kinds
        raise PoolError(
            f"The task or method {job.method.name} cannot be sent to another process ({error}); put its functions into an importable module, "
            "or pass workers=0."
        ) from error


def run_packed(key: str, job: bytes) -> Trial:
    """Run a job that came as bytes; one that cannot be read here has failed.

    Args:
        key: the trial's key.
        job: what `packed` made.
    """
    try:
        opened = pickle.loads(job)
    except Exception as error:  # unpickling imports the user's modules, so anything can come
        return Trial(key=key, method="", stage="tune", index=0, seed=0, hyper={}, status="failed",
                     message=f"{type(error).__name__}: {error} (the worker cannot import the task or the method)")
    return run_job(opened)


class HerePool:
    """One job at a time, in this process: for debugging, and for tasks and methods that cannot be sent."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    @property
    def free(self) -> int:
        """How many jobs can be submitted now."""
        return 1 - len(self._jobs)

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return not self._jobs

    def submit(self, job: Job) -> None:
        """Keep the job for `collect`."""
        self._jobs.append(job)

    def collect(self, timeout: float) -> list[Trial]:
        """Run the job, however long that takes."""
        if not self._jobs:
            time.sleep(timeout)
        jobs, self._jobs = self._jobs, []
        return [run_job(job) for job in jobs]

    def close(self) -> None:
        """Nothing runs between calls."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: connection.Connection
    trial: Trial | None = None


class LocalPool:
    """Processes of this machine, each with one thread of torch.

    A process that dies takes only its trial with it, and is replaced.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")  # a fork would share torch's thread pools in a broken state
        self._workers = [self._start() for _ in range(workers)]

    @property
    def free(self) -> int:
        """How many jobs can be submitted now."""
        return sum(worker.trial is None for worker in self._workers)

    @property
    def idle(self) -> bool:
        """Whether no job runs."""
        return self.free == len(self._workers)

    def submit(self, job: Job) -> None:
        """Send the job to a process that is idle."""
        worker = next(w for w in self._workers if w.trial is None)
        data = packed(job)
        worker.trial = job.trial
        with suppress(OSError):  # it died while idle: `collect` sees the closed pipe
            worker.pipe.send((job.trial.key, data))

    def collect(self, timeout: float) -> list[Trial]:
        """The trials that have ended; waits up to `timeout` seconds for the first."""
        busy = [worker for worker in self._workers if worker.trial is not None]
        if not busy:
            time.sleep(timeout)
            return []
        ready = connection.wait([worker.pipe for worker in busy], timeout)
        return [self._receive(worker) for worker in busy if worker.pipe in ready]

    def close(self) -> None:
        """Stop everything that still runs."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _receive(self, worker: _Worker) -> Trial:
        planned = worker.trial
        assert planned is not None
        try:
            ended: Trial = worker.pipe.recv()
            ended = replace(ended, method=planned.method, stage=planned.stage, index=planned.index, seed=planned.seed, hyper=planned.hyper)
            worker.trial = None
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            worker.pipe.close()
            killed = code == SIGKILL
            ended = replace(planned, status="out of memory" if killed else "failed",
                            message=f"the process ended with exit code {code}" + (", as the system does where memory runs out" if killed else ""))
            self._workers[self._workers.index(worker)] = self._start()
        return ended

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, os.getpid()), daemon=True)
        process.start()
        there.close()
        return _Worker(process, here)


def _work(pipe: connection.Connection, parent: int) -> None:
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    while True:
        try:
            key, job = pipe.recv()
        except (OSError, EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send(run_packed(key, job))
        except (OSError, KeyboardInterrupt):
            return  # the race was stopped


def _die_with(parent: int) -> None:
    """A killed race must not leave its processes training for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
