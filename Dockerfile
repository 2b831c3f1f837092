# The steps are the same as in `make install` and `make run`. Only wheels are installed, so neither stage needs a compiler.
FROM python:3.13-slim AS builder
WORKDIR /app
ENV PIP_ONLY_BINARY=:all: \
    PIP_NO_CACHE_DIR=1
COPY requirements.txt ./
COPY scripts/install.py scripts/
RUN python scripts/install.py
COPY llm_service/ llm_service/
RUN .venv/bin/python -m compileall -q llm_service

FROM python:3.13-slim
# The SDKs verify certificates with the system's store, which the base image has. The first line makes sure of that.
RUN test -s /etc/ssl/certs/ca-certificates.crt \
    && groupadd --system --gid 10001 service \
    && useradd --system --uid 10001 --gid service --no-create-home --home-dir /data --shell /usr/sbin/nologin service \
    && install --directory --owner=service --group=service --mode=0700 /data
WORKDIR /app
COPY --from=builder /app/.venv/ .venv/
COPY --from=builder /app/llm_service/ llm_service/
COPY wsgi.py gunicorn.conf.py ./
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLASK_APP=wsgi \
    HOST=0.0.0.0 \
    PORT=8000 \
    LLM_SERVICE_INSTANCE=/data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['PORT']}/health\", timeout=2)"]
# In the exec form gunicorn is process 1 and gets the stop signal itself.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
