from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import inspect, text

from llm_service import store
from llm_service.extensions import db
from llm_service.observability import record
from llm_service.settings import Settings
from llm_service.store import schema
from llm_service.store.engine import database_url
from llm_service.store.tables import Base, RequestRow


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(schema.MIGRATIONS))
    return made


def test_the_request_log_has_exactly_the_columns_of_a_record() -> None:
    assert tuple(column.name for column in RequestRow.__table__.columns) == record.COLUMNS


def test_the_head_revision_in_the_code_is_alembic_s() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [schema.HEAD]


def test_the_migrations_create_exactly_the_models(app: Flask) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": Base.metadata}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_downgrade_to_base_leaves_no_table_and_an_upgrade_works_again(app: Flask) -> None:
    command.downgrade(config(), "base")
    assert set(inspect(db.engine).get_table_names()) <= {"alembic_version"}
    assert schema.current(db.engine) is None
    assert store.upgrade(app) is True
    assert "requests" in inspect(db.engine).get_table_names()


def test_a_second_upgrade_does_nothing(settings: Settings, bare_app) -> None:
    app = bare_app(settings)
    assert store.upgrade(app) is True
    assert store.upgrade(app) is False


def test_the_error_about_a_newer_database_names_its_revision(app: Flask) -> None:
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(schema.SchemaError, match="9999"):
        store.upgrade(app)


def test_a_migration_that_fails_half_way_changes_nothing(settings: Settings, bare_app) -> None:
    app = bare_app(settings)
    with app.app_context():
        with db.engine.begin() as connection:
            connection.execute(text("CREATE TABLE requests (id INTEGER)"))  # 0001 creates api_keys first and then fails
        with pytest.raises(Exception, match="requests"):
            store.upgrade(app)
        assert inspect(db.engine).get_table_names() == ["requests"]


UPGRADE = """
import sys, logging
from flask import Flask
from llm_service import store
from llm_service.settings import Settings
app = Flask("test")
store.configure(app, Settings(database_url=sys.argv[1]))
handlers = list(logging.getLogger().handlers)
changed = store.upgrade(app)
assert logging.getLogger().handlers == handlers
assert not logging.getLogger("sqlalchemy").handlers
print(changed, "alembic" in sys.modules)
"""


def test_processes_that_start_at_the_same_time_migrate_once(settings: Settings, bare_app) -> None:
    run = [sys.executable, "-c", UPGRADE, database_url(settings)]
    processes = [subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=50) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert all(err == "" for _, err in outputs)
    with bare_app(settings).app_context():
        assert schema.current(db.engine) == schema.HEAD
    again = subprocess.run(run, capture_output=True, text=True, timeout=30, check=True)
    assert again.stdout.split() == ["False", "False"]  # nothing was done, and alembic was not even imported


def test_every_migration_has_a_downgrade_and_uses_no_type_of_ours() -> None:
    for path in Path(schema.MIGRATIONS, "versions").glob("*.py"):
        source = path.read_text()
        assert re.search(r"def downgrade\(\) -> None:\n    (?!pass)", source), path.name
        assert "llm_service" not in source, path.name
