"""gunicorn's configuration: gevent workers, and what happens before the first one starts and after the last one ends.

Run ``gunicorn`` in this folder to serve. The values that an operator may change come from the service's settings.
"""

# The patch comes before every other import, also in the arbiter: modules that are imported earlier, such as ssl, keep
# sockets and locks that block, and with preload_app the arbiter imports the application and the vendors' SDKs.
from gevent import monkey

monkey.patch_all()

# What is imported now lives as long as the process. So the garbage collector is off during the imports, and when_ready
# freezes their objects. That saves a tenth of the time to start, a pause of 0.1 s in every full collection of a worker,
# and 0.3 s at the end of each process.
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

# Until gunicorn handles signals itself, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    settings = Settings.load()
    _instance = settings.instance_path
except (SettingsError, OSError) as _error:
    sys.exit(f"llm_service: {_error}")

# prometheus_client reads this variable when it is imported, so it is set before the application is imported. The test
# is needed because a reload (SIGHUP) runs this file again.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(launch.metrics_folder(_instance))
launch.allow_open_files()

wsgi_app = "wsgi:app"
bind = launch.bind(settings.host, settings.port)
workers = settings.workers
worker_class = "llm_service.server.worker.Worker"
worker_connections = 2000  # per worker; a stream keeps its connection for minutes
# The SDKs are imported once for all workers, which share that memory. create_app opens no connection and starts no
# thread, so the fork copies only modules and values.
preload_app = True

graceful_timeout = ceil(settings.graceful_timeout)
timeout = 30  # seconds without a heartbeat, which means that something blocks gevent's hub
# The seconds that an idle connection is kept, and that a request's headers may take. This is longer than usual proxies
# and the connection pools of SDKs keep theirs (60 s or less). The client must be the one that closes first, because
# otherwise its next request may arrive while the service closes the connection. The worker does not wait for idle
# connections when it ends.
keepalive = 75

http_parser = "auto"  # the C parser of gunicorn[fast] if it is installed; the same limits apply
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# gunicorn trusts nobody's forwarding headers. LLM_SERVICE_TRUSTED_PROXIES decides about X-Forwarded-For (ProxyFix).
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

accesslog = None  # the service's journal writes one line per call
errorlog = "-"
loglevel = settings.log_level.lower()
# It suppresses gunicorn's own DEBUG lines, which quote requests.
logger_class = "llm_service.observability.logs.GunicornLogger"

reload = False
control_socket_disable = True  # gunicornc can add, kill and list workers through it; signals are enough here
if os.access("/dev/shm", os.W_OK):  # noqa: S108 - gunicorn creates a file without a name there
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - heartbeats must not wait for a disk


def on_starting(server: Any) -> None:
    try:
        if not server.master_pid:  # an arbiter that SIGUSR2 started again inherits the listening socket
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
    # This goes to stdout and not to the log, because the person who started the service reads stdout. It is flushed,
    # because otherwise every worker inherits the buffer and prints it again.
    sys.stdout.write(launch.welcome(launch.base_url(settings.host, port), catalog, key))
    sys.stdout.flush()
    gc.freeze()
    gc.enable()


def post_fork(server: Any, worker: Any) -> None:
    worker.inherited = server.SIG_QUEUE


def worker_exit(server: Any, worker: Any) -> None:
    if worker.pid == os.getpid():  # the arbiter also calls this hook, for a worker that has died
        worker.finish()


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    server.launch.stop()
