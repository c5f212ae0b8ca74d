"""Several processes that train together, as torchrun would start them, without importing torch anew in each."""

import faulthandler
import importlib
import multiprocessing
import os
import socket

from mlbtc.training.tasks import forecasting, in_context_regression

PATIENCE = 120
"""Seconds that a team has."""


def forking():
    """Return a context whose processes start in milliseconds, as torch is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([in_context_regression.__name__, forecasting.__name__, __name__])
    return context


def run_rank(task, config, resume, environment):
    os.environ.update(environment)
    # A team that hangs says where.
    faulthandler.dump_traceback_later(PATIENCE - 10, exit=True)
    importlib.import_module(task).run(config, resume=resume)
    faulthandler.cancel_dump_traceback_later()


def start_team(task, config, *, size=2, resume=False):
    """Start the processes of a team and return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    team = []
    for rank in range(size):
        environment = address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = forking().Process(target=run_rank, args=(task.__name__, config, resume, environment))
        process.start()
        team.append(process)
    return team


def run_team(task, config, **options):
    """Run a team to its end."""
    team = start_team(task, config, **options)
    for process in team:
        process.join(PATIENCE)
    codes = [process.exitcode for process in team]
    assert codes == [0] * len(team), f"exit codes {codes}"
