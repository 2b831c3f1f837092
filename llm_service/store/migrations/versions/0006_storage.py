"""Whether calls of a key may ask the vendor to store content.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("storage", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("api_keys", "storage")
