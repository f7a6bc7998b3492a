"""A process that carries out tasks for another one (floor 4): started by `cellmill.ingest.workers`, ends with it.

Run as a program whose argument is the descriptor of a connection. Gets a `WorkOrder`, then tasks; None ends it, and so
does the end of the connection at any moment: no process is left behind by a parent that is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from cellmill.errors import CellmillError
from cellmill.events import Event, listening
from cellmill.ingest.digests import Digests
from cellmill.ingest.failures import as_text
from cellmill.ingest.order import WorkOrder
from cellmill.ingest.shards import Ingestion
from cellmill.ingest.tasks import Task
from cellmill.store.pieces import Pieces

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Work until the other end says that it is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent answers it
    connection = Connection(descriptor)
    order: WorkOrder = connection.recv()
    asked: SimpleQueue[Task | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), name="cellmill-worker-tasks", daemon=True).start()

    def pass_on(event: Event) -> None:
        connection.send(("event", event))

    try:
        with listening(pass_on), Digests() as digests:
            pieces = Pieces(Path(order.place))
            with Ingestion(
                order.read(), pieces, digests, threads=order.threads, folder=Path(order.folder)
            ) as ingestion:
                while (task := asked.get()) is not None:
                    _carry_out(ingestion, task, connection)
    except CellmillError as error:
        connection.send(("unable", as_text(error)))
    except OSError as error:  # such as no room for a folder of its own
        connection.send(("system", (error.errno, error.strerror, error.filename)))


def _listen(connection: Connection, asked: SimpleQueue[Task | None]) -> None:
    try:
        while True:
            task = connection.recv()
            asked.put(task)
            if task is None:
                return
    except (EOFError, OSError):
        os._exit(1)  # who asked is gone, and so is whom to tell


def _carry_out(ingestion: Ingestion, task: Task, connection: Connection) -> None:
    try:
        ingestion.carry_out(task, lambda rows: connection.send(("rows", rows)))
        ingestion.settle()
        connection.send(("done", None))
    except CellmillError as error:
        connection.send(("refused" if error.exit_code == 2 else "failed", as_text(error)))
    except OSError as error:
        connection.send(("system", (error.errno, error.strerror, error.filename)))
    except Exception:
        connection.send(("crashed", traceback.format_exc()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
