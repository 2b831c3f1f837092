"""Budgets; limits of users, organisations and the service; token, parallel-call and network limits of keys.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("tpm", sa.Integer()))
    op.add_column("api_keys", sa.Column("parallel", sa.Integer()))
    op.add_column("api_keys", sa.Column("networks", sa.JSON(none_as_null=True)))
    op.create_table(
        "limits",
        sa.Column("scope_kind", sa.String(16), nullable=False),
        sa.Column("scope_name", sa.String(200), nullable=False),
        sa.Column("rpm", sa.Integer()),
        sa.Column("tpm", sa.Integer()),
        sa.Column("parallel", sa.Integer()),
        sa.PrimaryKeyConstraint("scope_kind", "scope_name", name=op.f("pk_limits")),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("scope_kind", sa.String(16), nullable=False),
        sa.Column("scope_name", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint(
            "scope_kind", "scope_name", "model", "period", name=op.f("uq_budgets_scope_kind_scope_name_model_period")
        ),
    )


def downgrade() -> None:
    op.drop_table("budgets")
    op.drop_table("limits")
    op.drop_column("api_keys", "networks")
    op.drop_column("api_keys", "parallel")
    op.drop_column("api_keys", "tpm")
