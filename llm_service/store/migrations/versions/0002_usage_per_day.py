"""Usage per day.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_daily",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("org", sa.String(200), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("model_served", sa.String(200), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger()),
        sa.Column("unpriced_calls", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "key_id", "org", "user", "provider", "model_served", name=op.f("pk_usage_daily")
        ),
        sqlite_with_rowid=False,
    )
    _roll_up()
    op.create_index(op.f("ix_usage_daily_key_id_day"), "usage_daily", ["key_id", "day"])


def _roll_up() -> None:
    """Add up the rows that the log has so far.

    No other process writes meanwhile: SQLite has one writer, and on PostgreSQL the table is locked.
    """
    sqlite = op.get_context().dialect.name == "sqlite"
    if not sqlite:
        op.execute("LOCK TABLE requests IN SHARE ROW EXCLUSIVE MODE")
    day = "substr(created_at, 1, 10)" if sqlite else "CAST(created_at AT TIME ZONE 'UTC' AS DATE)"
    labels = ", ".join(f"""coalesce("{name}", '')""" for name in ("key_id", "org", "user", "provider", "model_served"))
    tokens = ", ".join(f"coalesce({_sum(name)}, 0)" for name in ("input_tokens", "output_tokens", "cached_tokens"))
    unpriced = "count(CASE WHEN cost_nanousd IS NULL AND outcome <> 'refused' THEN 1 END)"
    sums = f"SELECT {day}, {labels}, count(*), {tokens}, {_sum('cost_nanousd')}, {unpriced} FROM requests"  # noqa: S608
    op.execute(
        'INSERT INTO usage_daily (day, key_id, org, "user", provider, model_served, calls,'
        f" input_tokens, output_tokens, cached_tokens, cost_nanousd, unpriced_calls) {sums} GROUP BY 1, 2, 3, 4, 5, 6"
    )


def _sum(column: str) -> str:
    """Return an exact sum that stops at the largest integer, where SQLite would raise an overflow error."""
    high, low = f"sum({column} >> 32)", f"sum({column} & 4294967295)"
    return f"CASE WHEN {high} >= 1073741824 THEN 9223372036854775807 ELSE {high} * 4294967296 + {low} END"


def downgrade() -> None:
    op.drop_table("usage_daily")
