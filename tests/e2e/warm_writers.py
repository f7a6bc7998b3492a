"""A process that has imported cellmill and forks a child for each writer asked for, so that a hundred start in seconds.

Reads requests from standard input, a JSON object a line; answers each with two lines: the child's process id, and what
became of it. Not a test: run by the fixture `warm`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time

from cellmill.genes import recognise_species
from cellmill.ingest import admission, append_inputs, build
from cellmill.sources import open_source
from cellmill.store import merge, merge_stores

VERBS = {"build": build, "append": append_inputs, "merge": merge_stores}
TOUCHING = ("open", "os.", "shutil.")  # audit events of calls that may change names or contents


def slow_down(seconds: float) -> None:
    """Let every block of cells, or copied file, take at least so long."""
    for module, name in ((admission, "convert_block"), (merge, "copy_file")):
        call = getattr(module, name)

        def wrapper(*args, _call=call, **kw):
            time.sleep(seconds)
            return _call(*args, **kw)

        setattr(module, name, wrapper)


class Events:
    """Counts calls to the file system, and dies by SIGKILL before the one with the given number."""

    def __init__(self, kill_at: int | None) -> None:
        self.n = 0
        self.kill_at = kill_at

    def __call__(self, event: str, _: object) -> None:
        if event.startswith(TOUCHING) and event != "os.kill":
            if self.n == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.n += 1


def write(request: dict, answer: int) -> None:
    """The child: one writer, and the end of the process."""
    result: dict = {}
    try:
        if request.get("slow"):
            slow_down(request["slow"])
        if request.get("limit_bytes"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit_bytes"], request["limit_bytes"]))
        events = Events(request.get("kill_at"))
        sys.addaudithook(events)
        started = time.perf_counter()
        store = VERBS[request["verb"]](*request["args"], **request.get("options", {}))
        result = {"digest": store.digest, "events": events.n, "seconds": time.perf_counter() - started}
    except BaseException as error:
        result = {"error": type(error).__name__, "message": str(error)}
    os.write(answer, json.dumps(result).encode())
    os._exit(0)


def main() -> None:
    open_source(sys.argv[1]).close()  # what is imported and loaded once is there for all children
    recognise_species(["gene-1"], None)
    for line in sys.stdin:
        request = json.loads(line)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            write(request, told)
        os.close(told)
        print(json.dumps({"pid": child}), flush=True)
        if request.get("kill_after") is not None:
            time.sleep(request["kill_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(heard) as pipe:
            result = pipe.read()
        print(json.dumps({"killed": os.WTERMSIG(status)}) if os.WIFSIGNALED(status) else result, flush=True)


if __name__ == "__main__":
    main()
