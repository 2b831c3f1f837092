"""python run.py CLIENT: runs one case for each line of its input and prints its result as one line of JSON.

A line is ``{"case", "base", "key", "api", "model"}``. The result has what the client returned, or the error that it
raised. The script runs in the environment of the client, so it imports nothing of the project.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from common import Service


def failure(error: BaseException) -> dict[str, Any]:
    """The error that the client raised, with the HTTP status that it, or an error below it, knows."""
    status: int | None = None
    below: BaseException | None = error
    while below is not None and status is None:
        status = getattr(below, "status_code", None)
        below = below.__cause__ or below.__context__
    return {"error": type(error).__name__, "status": status, "message": str(error)}


def main(client: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print is no answer
    module = importlib.import_module(client)
    for line in sys.stdin:
        task = json.loads(line)
        case = getattr(module, task.pop("case"))
        try:
            result = case(Service(**task))
        except Exception as error:
            result = failure(error)
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
