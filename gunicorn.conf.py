"""gunicorn's configuration: gevent workers, and what happens before the first one and after the last.

``gunicorn`` in this folder is all that is needed to serve; every value comes from settings.py.
"""

# First of all, in the arbiter too: modules that are imported before the patch, such as ssl, keep blocking
# sockets and locks, and with preload_app the application and the vendors' SDKs are imported here.
from gevent import monkey

monkey.patch_all()

# What is imported now lives as long as the process: not collected while it is made, and never looked at again
# (when_ready freezes it). Saves a tenth of the start, a pause of 0.1 s in every full collection of a worker, and
# 0.3 s of each process' end.
import gc

gc.disable()

import os
import signal
import sys
from math import ceil
from pathlib import Path
from typing import Any

from llm_service.server import launch
from llm_service.settings import Settings, SettingsError

# Until gunicorn handles signals itself, Ctrl-C ends the start without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    settings = Settings.load()
    _instance = settings.instance_path
except (SettingsError, OSError) as _error:
    sys.exit(f"llm_service: {_error}")

# Read by prometheus_client when it is imported, so before the application is. A reload (SIGHUP) comes here again.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(launch.metrics_folder(_instance))
launch.allow_open_files()

wsgi_app = "wsgi:app"
bind = launch.bind(settings.host, settings.port)
workers = settings.workers
worker_class = "llm_service.server.worker.Worker"
worker_connections = 2000  # per worker; a stream holds one for minutes
# One import of the SDKs for all workers, and their memory is shared. create_app opens no connection and starts
# no thread, so what is forked is only modules and values.
preload_app = True

graceful_timeout = ceil(settings.graceful_timeout)
timeout = 30  # seconds without a heartbeat: something blocks the hub
# How long an idle connection is kept, and how long a request's headers may take. Longer than what usual proxies
# and SDK connection pools keep theirs (60 s or less): who closes first must be the client, or its next request
# may meet the closing. A drain does not wait for idle connections (llm_service/server/worker.py).
keepalive = 75

http_parser = "auto"  # the C parser of gunicorn[fast] where it is installed; the same limits apply
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# Whose X-Forwarded-For counts is LLM_SERVICE_TRUSTED_PROXIES' matter (ProxyFix): here nobody's headers are believed.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

accesslog = None  # the journal writes one line per call
errorlog = "-"
loglevel = settings.log_level.lower()
logger_class = (
    "llm_service.observability.logs.GunicornLogger"  # never lets gunicorn's own DEBUG lines out: they quote requests
)

reload = False
control_socket_disable = True  # gunicornc would add, kill and list workers; signals do what is needed
if os.access("/dev/shm", os.W_OK):  # noqa: S108 - gunicorn makes a file without a name there
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - heartbeats must not wait for a disk


def on_starting(server: Any) -> None:
    try:
        if not server.master_pid:  # else a re-executed arbiter (SIGUSR2), which inherits the listening socket
            launch.check_port(settings.host, settings.port)
        metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        own_metrics = metrics if metrics.is_relative_to(_instance) else None
        server.launch = launch.prepare(server.app.wsgi(), settings, own_metrics)
    except launch.LaunchError as error:
        sys.exit(f"llm_service: {error}")


def when_ready(server: Any) -> None:
    app = server.app.wsgi()
    port = server.LISTENERS[0].sock.getsockname()[1]
    key = launch.first_key(app, settings)
    catalog = app.extensions["llm_service"].catalog
    # Not the log: stdout is what the person who started the service reads. Flushed, or every worker inherits it.
    sys.stdout.write(launch.welcome(launch.base_url(settings.host, port), catalog, key))
    sys.stdout.flush()
    gc.freeze()
    gc.enable()


def post_fork(server: Any, worker: Any) -> None:
    worker.inherited = server.SIG_QUEUE


def worker_exit(server: Any, worker: Any) -> None:
    if worker.pid == os.getpid():  # the arbiter calls it too, for a worker that it finds gone
        worker.finish()


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    server.launch.stop()
