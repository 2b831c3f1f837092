"""Logging: JSON lines on stderr, without content at any level.

Each record is one line, ``{"time", "level", "logger", "message", ...fields}``, written by one ``write``. What is
printed depends on the code that logs:

* our own code (a logger ``llm_service...`` used in this package): the message as it is, because our code never logs
  content, and ``extra={"fields": {...}}``;
* gunicorn's arbiter and sockets, which never see a request, from INFO on: the formatted message;
* all other code, from WARNING on, whatever level its logger has: the message only if it is a constant of that code. A
  template keeps its ``%s``; its arguments are printed if all of them are integers. An f-string may hold content: it is
  withheld, and its position in the code is printed instead.

Of an exception, the type and the frames of this package are printed, but never its text (``scrub.safe_exception``). The
same holds for what would reach stderr without logging: warnings, and uncaught exceptions of threads and greenlets
(``seal``).

If ANTHROPIC_LOG or OPENAI_LOG is set, the SDKs raise the levels of their own loggers at import. That is why the handler
decides what is printed, and not the loggers.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import orjson
from gunicorn import glogging

from llm_service.observability import scrub

OURS = "llm_service"
GUNICORN = "gunicorn.error"
WITHHELD = "(a message of a library, withheld: it may hold content)"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Modules of gunicorn that never see a request: they start, bind sockets, and start and stop workers.
_LIFECYCLE = (os.path.join("gunicorn", "arbiter.py"), os.path.join("gunicorn", "sock.py"))

log = logging.getLogger(__name__)


def configure(level: str = "INFO", write: Callable[[bytes], object] | None = None) -> None:
    """Make JSON lines on stderr the only log of the process. Another call changes the level.

    This removes every other handler, including those of libraries, because they would print messages as they are.
    ``write`` gets one line at a time and replaces stderr.
    """
    handler = JsonLines(write or _to_stderr)
    root = logging.getLogger()
    # So loggers without a level of their own do not build records below WARNING.
    root.setLevel(logging.WARNING)
    for name in list(root.manager.loggerDict):
        logger = root.manager.loggerDict[name]
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    root.handlers[:] = [handler]
    logging.lastResort = handler
    logging.getLogger(OURS).setLevel(level)
    logging.getLogger(GUNICORN).setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level]))
    warnings.showwarning = _show_warning


def _to_stderr(line: bytes) -> None:
    # Not by sys.stderr: one system call per line keeps the lines of workers and threads apart.
    while line:
        line = line[os.write(2, line) :]


class JsonLines(logging.Handler):
    """Formats and writes records by the rules of this module."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self._write = write

    def handle(self, record: logging.LogRecord) -> bool:
        # This takes no lock, because gevent's hub also logs (``seal``) and cannot wait for a lock.
        if not is_wanted(record):
            return False
        try:
            line = as_line(record)
        except Exception as error:  # noqa: BLE001 - every record gets a line
            # The handleError of logging would print the record's arguments.
            line = _unformattable(record, error)
        try:
            self._write(line)
        except OSError:
            return False  # stderr is closed: this cannot be reported anywhere
        return True


def is_wanted(record: logging.LogRecord) -> bool:
    return (
        record.levelno >= logging.WARNING
        or record.name == OURS
        or record.name.startswith(OURS + ".")
        or (record.name == GUNICORN and record.levelno >= logging.INFO)
    )


def as_line(record: logging.LogRecord) -> bytes:
    entry: dict[str, Any] = {
        "time": _rfc3339(record.created),
        "level": record.levelname,
        "logger": record.name,
    }
    if _is_ours(record):
        entry["message"] = record.getMessage()
        entry.update(getattr(record, "fields", ()))
    else:
        _add_foreign_message(record, entry)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        entry["exception"] = scrub.safe_exception(error)
    return _json(entry) + b"\n"


def _unformattable(record: logging.LogRecord, error: Exception) -> bytes:
    return (
        _json(
            {
                "time": _rfc3339(record.created),
                "level": record.levelname,
                "logger": record.name,
                "message": "a log record could not be formatted",
                "at": _position(record.pathname, record.lineno),
                "exception": {"type": type(error).__name__},
            }
        )
        + b"\n"
    )


def _position(path: str, line: int) -> str:
    """``folder/file.py:line``, without the path on this machine."""
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name}:{line}"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _json(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry, default=_type_of)
    except TypeError:
        # There are lone surrogates or an integer beyond 64 bits: escaped text is better than no line.
        return orjson.dumps({name: ascii(value) for name, value in entry.items()})


def _type_of(value: object) -> str:
    return f"<{type(value).__name__}>"


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a file of this package logged it: Flask logs the request's path on the application's own logger."""
    is_our_logger = record.name == OURS or record.name.startswith(OURS + ".")
    return is_our_logger and record.pathname.startswith(_PACKAGE)


def _add_foreign_message(record: logging.LogRecord, entry: dict[str, Any]) -> None:
    if record.name == GUNICORN and record.pathname.endswith(_LIFECYCLE) and "\n" not in record.getMessage():
        entry["message"] = record.getMessage()
        return
    if isinstance(record.msg, str) and _is_constant(record):
        args = record.args if isinstance(record.args, tuple) else (record.args,)
        harmless = bool(record.args) and all(type(arg) is int for arg in args)
        entry["message"] = record.getMessage() if harmless else record.msg
    else:
        entry["message"] = WITHHELD
        # gunicorn logs a malformed request while it handles the parser's exception. The class says what is wrong.
        handled = sys.exc_info()[0]
        if handled is not None:
            entry["handling"] = handled.__name__
    entry["at"] = _position(record.pathname, record.lineno)


def _is_constant(record: logging.LogRecord) -> bool:
    """Whether the message is a literal in the function that logs it. Formatted text is not."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == record.pathname and code.co_name == record.funcName:
            return record.msg in code.co_consts
        frame = frame.f_back
    return False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Log where a warning came from, but not its text: pydantic's warnings contain the values that it was given."""
    fields = {"category": category.__name__, "at": _position(filename, lineno)}
    log.warning("a library warned", extra={"fields": fields})


def seal() -> None:
    """Keep the texts of exceptions off stderr where Python and gevent print tracebacks without logging.

    This is for servers: at a command line a traceback is more useful.
    """
    sys.excepthook = _excepthook
    threading.excepthook = _thread_excepthook
    sys.unraisablehook = _unraisablehook
    hub = sys.modules.get("gevent.hub")
    if hub is not None:
        hub.Hub.print_exception = _hub_print_exception


def _uncaught(where: str, error: BaseException | None) -> None:
    log.error("uncaught exception in %s", where, exc_info=error)


def _excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    _uncaught("the main thread", error)


def _thread_excepthook(args: threading.ExceptHookArgs) -> None:
    _uncaught("a thread", args.exc_value)


def _unraisablehook(args: sys.UnraisableHookArgs) -> None:
    _uncaught("a finalizer", args.exc_value)


def _hub_print_exception(hub: Any, context: Any, kind: Any, error: Any, trace: Any) -> None:
    # gevent may pass None, or a class instead of the exception.
    _uncaught("a greenlet", error if isinstance(error, BaseException) else None)


class GunicornLogger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's ``logger_class``: its error log is written like all other logs, and its access log is off.

    The journal writes one line per request. gunicorn's own line would contain paths, queries and addresses.
    """

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.access_log.disabled = True
        configure(cfg.loglevel.upper())
        seal()

    @property
    def access_log_enabled(self) -> bool:
        return False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        return

    # stacklevel: the record must name the code that called this class.
    def critical(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, stacklevel=2, **kwargs)

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, stacklevel=2, **kwargs)

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, stacklevel=2, **kwargs)

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, stacklevel=2, **kwargs)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, stacklevel=2, **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.exception(msg, *args, stacklevel=2, **kwargs)

    def log(self, lvl: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        level = self.LOG_LEVELS.get(lvl.lower(), logging.INFO) if isinstance(lvl, str) else lvl
        self.error_log.log(level, msg, *args, stacklevel=2, **kwargs)
