"""``python -m benchmarks.usage_benchmark [--rows N] [sqlite] [postgresql]``: the time of usage queries on a long log.

Fills an empty database with an invented log of 90 days (200 keys, 20 organisations, 5 models), lets the migration
compute the daily sums, and makes the queries of ``flask usage`` and ``/v1/usage``. Prints the median and the slowest of
several runs, and the database's query plans.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import event, text

from llm_service import store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import budgets, requests
from tests.support.postgres import Postgres

ROWS, DAYS, TIMES = 1_000_000, 90, 9
SECRET = "only for benchmarks"

# The statement is the same for both databases, except for numbers and times. n is the number of the row. Every key uses
# every model.
FILL = """
INSERT INTO requests (id, created_at, key_id, org, "user", route, dialect, stream, model_asked, provider, model_served,
    attempts, status, outcome, input_tokens, output_tokens, cached_tokens, usage_exact, cost_nanousd, latency_ms)
SELECT 'row' || n, {created}, 'key' || (n * 7919 % 200), 'org' || (n * 7919 % 20), 'user' || (n * 7919 % 200 / 2),
    '/v1/complete', 'simple', {no}, 'fast', CASE WHEN n / 200 * 104729 % 5 < 3 THEN 'openai' ELSE 'anthropic' END,
    'model-' || (n / 200 * 104729 % 5), 1, 200, CASE WHEN n % 50 = 0 THEN 'refused' ELSE 'ok' END,
    n * 31 % 5000, n * 37 % 900, n * 41 % 300, {yes}, CASE WHEN n % 97 = 0 THEN NULL ELSE n * 613 % 20000000 END,
    n % 4000
FROM {numbers}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.usage_benchmark", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument(
        "databases", nargs="*", choices=["sqlite", "postgresql", []], help="the databases to measure (default: both)"
    )
    options = parser.parse_args()
    wanted = options.databases or ["sqlite", "postgresql"]
    if "sqlite" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            run(Settings(instance=Path(folder), secret_text=SECRET), options.rows)
    if "postgresql" in wanted:
        server = Postgres()
        try:
            with tempfile.TemporaryDirectory() as folder:
                url = server.start().fresh_url()
                run(Settings(instance=Path(folder), secret_text=SECRET, database_url=url), options.rows)
        finally:
            server.remove()


def run(settings: Settings, rows: int) -> None:
    app = Flask("benchmark")
    store.configure(app, settings)
    with app.app_context():
        name = db.engine.dialect.name
        store.upgrade(app, "0001")
        filled = timed(lambda: fill(rows))
        added = timed(lambda: store.upgrade(app))
        with db.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
            days = connection.execute(text("SELECT count(*) FROM usage_daily")).scalar()
        print(f"\n{name}: {rows:,} rows in {filled:.1f} s; the migration made {days:,} daily sums in {added:.1f} s\n")
        print(f"{'':44}{'median':>10}{'worst':>10}")
        for label, query in queries().items():
            query()
            times = [timed(query) * 1000 for _ in range(TIMES)]
            print(f"{label:44}{statistics.median(times):7.1f} ms{max(times):7.1f} ms", flush=True)
        for statement, parameters in statements_of(lambda: requests.usage("model", since=since())):
            print(f"\n  {' '.join(statement.split())[:150]} ...")
            for line in plan(statement, parameters):
                print(f"    {line}")
        db.engine.dispose()


def queries() -> dict[str, Any]:
    whole = since().replace(hour=0, minute=0, second=0, microsecond=0)
    queries_by_label: dict[str, Any] = {}
    for by in requests.BY:
        queries_by_label[f"usage --by {by}"] = lambda by=by: requests.usage(by)
        queries_by_label[f"usage --by {by}, 30 days to the instant"] = lambda by=by: requests.usage(by, since=since())
    queries_by_label["usage --by key, 30 whole days"] = lambda: requests.usage("key", since=whole)
    queries_by_label["one key, 30 days to the instant (/v1/usage)"] = lambda: requests.usage(
        "key", since=since(), key="key7"
    )
    zone, now = "America/New_York", datetime.now(UTC)
    made = [budgets.put("key", f"key{number}", 10**12, "month") for number in range(200)]
    queries_by_label["spent of 200 keys' months in New York"] = lambda: budgets.spent(made, zone, now)
    return queries_by_label


def since() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)


def fill(rows: int) -> None:
    sqlite = db.engine.dialect.name == "sqlite"
    step = DAYS * 86_400_000 // rows
    if sqlite:
        created = f"strftime('%Y-%m-%d %H:%M:%f', 'now', (-n * {step} / 1000.0) || ' seconds') || '000'"
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) SELECT n FROM c)"
        words = {"yes": "1", "no": "0"}
    else:
        created = f"now() - n * interval '{step} milliseconds'"
        numbers = f"generate_series(1, {rows}::bigint) AS n"
        words = {"yes": "true", "no": "false"}
    with db.engine.begin() as connection:
        if not sqlite:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        statement = FILL.format(created=created, numbers=numbers, **words)
        connection.exec_driver_sql(statement if sqlite else statement.replace("%", "%%"))


def timed(function: Any) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def statements_of(function: Any) -> Iterator[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    with listening(note):
        function()
    yield from seen


@contextmanager
def listening(note: Any) -> Iterator[None]:
    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def plan(statement: str, parameters: Any) -> list[str]:
    sqlite = db.engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN (ANALYZE, COSTS OFF) "
    with db.engine.connect() as connection:
        return [str(line[-1]) for line in connection.exec_driver_sql(explain + statement, parameters)]


if __name__ == "__main__":
    main()
