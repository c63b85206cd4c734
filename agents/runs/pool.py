"""One worker process and the pipe to it, seen from both ends. Nothing heavy is imported here.

A worker ends with its parent, however that ended, and leaves signals to it. A worker that was killed is noticed by the
end of its pipe, and takes no other worker with it.
"""

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection, context, get_context, parent_process
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal

from agents.runs.interrupt import leave_to_parent

Kind = Literal["begun", "steps", "done", "failed", "died"]
"""Of a message: a job begins, steps that it took, its result, the exception it raised, or how the process ended."""


class Worker:
    """A process that does one job at a time, seen from its parent.

    Attributes:
        job: that it does, ``None`` between two.
        begun: whether the job runs yet: before that the process imports what the job needs.
        connection: to it; readable when there is a message.
    """

    def __init__(self) -> None:
        # Spawned, as a forked process would share torch's threads and generators.
        spawn: context.SpawnContext = get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs,), daemon=False)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.job: Any = None
        self.begun = False
        # A loop that nobody has closed must not keep the interpreter from ending.
        atexit.register(self.process.kill)

    def give(self, do: Callable[..., Any], job: Any) -> None:
        """Let it do ``job``."""
        self.job, self.begun = job, False
        self._send((do, job))

    def stop(self) -> None:
        """Ask it to stop its job where that can be resumed, and to end; a job that has not begun loses nothing."""
        if self.job is not None and not self.begun:
            self.process.kill()
        self._send(None)

    def receive(self) -> tuple[Kind, Any]:
        """Return the next message; it waits for one."""
        try:
            kind, content = self.connection.recv()
            self.begun |= kind == "begun"
            return kind, content
        except (EOFError, ConnectionError):
            self.process.join()
            return "died", ended_by(self.process.exitcode)

    def end(self) -> None:
        """End the process, which has no job, and wait for that."""
        self.connection.close()
        self.process.join()
        atexit.unregister(self.process.kill)

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.end()

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except ConnectionError:
            return  # it was killed: the next ``receive`` returns how


def ended_by(code: int | None) -> str:
    """Return how a process with this exit code ended.

    >>> ended_by(-9), ended_by(1)
    ('killed by SIGKILL', 'ended with exit status 1')
    """
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit status {code}"


class WorkerTracebackError(Exception):
    """Where in a worker an exception was raised: the cause of the exception that its parent raises."""

    def __str__(self) -> str:
        return f"in a worker process\n{self.args[0]}"


# ---- in the worker --------------------------------------------------------------------------------------------------


def serve(pipe: connection.Connection) -> None:
    """Do jobs as they come, until the parent closes ``pipe``."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    leave_to_parent()
    os.environ["OMP_NUM_THREADS"] = "1"  # of torch, too, which the first job may import

    def advance(steps: int) -> bool:
        try:
            pipe.send(("steps", steps))
        except ConnectionError:
            os._exit(1)  # the parent has ended
        return not pipe.poll()  # while a job runs the parent only sends that it is to stop

    def begin() -> None:
        if "torch" in sys.modules:  # a program that workers import may have loaded it before
            sys.modules["torch"].set_num_threads(1)
        pipe.send(("begun", None))

    try:
        while (message := _done(pipe.recv_bytes(), begin, advance)) is not None:
            pipe.send(message)
    except (EOFError, ConnectionError):
        pass  # the parent has closed the pipe, or has ended
    # Python takes seconds to take torch apart; jobs have closed their files.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _done(sent: bytes, begin: Callable[[], None], advance: Callable[[int], bool]) -> tuple[Kind, Any] | None:
    """Do the job that the parent has sent and return the message that says so; ``None`` where there is none to do."""
    try:
        task = ForkingPickler.loads(sent)  # imports what the job needs, which may fail
        if task is None:
            return None
        do, job = task
        begin()
        result = do(job, advance)
        ForkingPickler.dumps(result)  # raises here for what the pipe cannot carry
        return "done", result
    except BaseException as error:  # noqa: BLE001 - raised again where the job came from
        where = traceback.format_exc()
        try:
            ForkingPickler.loads(ForkingPickler.dumps(error))
        except Exception:  # noqa: BLE001 - a class of any library may fail in any way
            return "failed", (RuntimeError(f"{type(error).__name__}: {error}"), where)
        return "failed", (error, where)


def end_with_parent() -> None:
    """Wait for the end of the parent, which nothing else tells a worker of that waits or trains, and end, too."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
