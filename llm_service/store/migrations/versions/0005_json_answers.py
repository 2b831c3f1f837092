"""Whether a key's JSON answers are checked and repaired.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("json_answers", sa.String(16)))


def downgrade() -> None:
    op.drop_column("api_keys", "json_answers")
