"""API keys and the request log.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(8), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("org", sa.String(200)),
        sa.Column("user", sa.String(200)),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("rpm", sa.Integer()),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("previous_digest", sa.String(64)),
        sa.Column("previous_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_name"), "api_keys", ["name"])
    op.create_table(
        "requests",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("org", sa.String(200)),
        sa.Column("user", sa.String(200)),
        sa.Column("route", sa.String(64)),
        sa.Column("dialect", sa.String(32)),
        sa.Column("stream", sa.Boolean()),
        sa.Column("model_asked", sa.String(200)),
        sa.Column("provider", sa.String(64)),
        sa.Column("model_served", sa.String(200)),
        sa.Column("attempts", sa.Integer()),
        sa.Column("status", sa.Integer()),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("error_type", sa.String(100)),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("cache_write_tokens", sa.BigInteger()),
        sa.Column("reasoning_tokens", sa.BigInteger()),
        sa.Column("usage_exact", sa.Boolean()),
        sa.Column("cost_nanousd", sa.BigInteger()),
        sa.Column("latency_ms", sa.Integer()),
        sa.Column("ttft_ms", sa.Integer()),
        sa.Column("prompt_hmac", sa.String(64)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("upstream_request_id", sa.String(128)),
        sa.Column("client_ip_hmac", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_created_at"), "requests", ["created_at"])
    op.create_index(op.f("ix_requests_key_id_created_at"), "requests", ["key_id", "created_at"])


def downgrade() -> None:
    op.drop_table("requests")
    op.drop_table("api_keys")
