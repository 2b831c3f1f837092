"""Budget thresholds that were passed, and the delivery of their alerts.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget_alerts",
        sa.Column("scope_kind", sa.String(16), nullable=False),
        sa.Column("scope_name", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("period_id", sa.String(32), nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("threshold", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("resets_at", sa.DateTime(timezone=True)),
        sa.Column("spent_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint(
            "scope_kind",
            "scope_name",
            "model",
            "period_id",
            "amount_nanousd",
            "threshold",
            name=op.f("pk_budget_alerts"),
        ),
        sa.UniqueConstraint("id", name=op.f("uq_budget_alerts_id")),
    )
    op.create_index(op.f("ix_budget_alerts_next_at"), "budget_alerts", ["next_at"])


def downgrade() -> None:
    op.drop_table("budget_alerts")
