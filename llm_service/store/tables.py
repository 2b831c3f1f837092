"""The tables. Each change here needs a new file in ``migrations/versions``.

No column can hold content: no prompt, no completion, no tool arguments, no headers,
no key.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from llm_service.extensions import db


class UTCDateTime(TypeDecorator[datetime]):
    """Takes an aware datetime and returns an aware UTC datetime, on every database.

    SQLite stores no time zone, so there the value is stored in UTC without one.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime must have a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = db.metadata


class ApiKey(Base):
    """An API key: its HMAC-SHA-256 digest, never the key itself.

    ``previous_digest`` is valid until ``previous_until``, the end of a rotation's grace period.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    org: Mapped[str | None] = mapped_column(String(200))
    user: Mapped[str | None] = mapped_column(String(200))
    tier: Mapped[str] = mapped_column(String(64))
    rpm: Mapped[int | None]
    models: Mapped[list[str]] = mapped_column(JSON(none_as_null=True))
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    digest: Mapped[str] = mapped_column(String(64))
    previous_digest: Mapped[str | None] = mapped_column(String(64))
    previous_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    tpm: Mapped[int | None]
    parallel: Mapped[int | None]
    # In CIDR. Null: the key may be used from anywhere.
    networks: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    # One of JsonAnswers. Null: off.
    json_answers: Mapped[str | None] = mapped_column(String(16))
    # Whether the vendor may store content when a call asks for it. Null: the service's setting.
    storage: Mapped[bool | None]


class LimitRow(Base):
    """Limits of one scope. The whole service has the name "". Null means no limit."""

    __tablename__ = "limits"

    scope_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    rpm: Mapped[int | None]
    tpm: Mapped[int | None]
    parallel: Mapped[int | None]


class BudgetRow(Base):
    """Money that a scope may spend per period. ``model`` "" means all models; the whole service has the name ""."""

    __tablename__ = "budgets"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_name: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(200))
    amount_nanousd: Mapped[int] = mapped_column(BigInteger)
    period: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("scope_kind", "scope_name", "model", "period"),)


class UsageDay(Base):
    """The sums of one UTC day's calls with the same key, labels and model. They stay when rows are deleted.

    "" stands for null. ``cost_nanousd`` is null if the cost of every call is null, as in a sum of rows.
    """

    __tablename__ = "usage_daily"

    day: Mapped[date] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    org: Mapped[str] = mapped_column(String(200), primary_key=True)
    user: Mapped[str] = mapped_column(String(200), primary_key=True)
    provider: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_served: Mapped[str] = mapped_column(String(200), primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nanousd: Mapped[int | None] = mapped_column(BigInteger)
    unpriced_calls: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index(None, "key_id", "day"),
        {"sqlite_with_rowid": False},
    )


class RequestRow(Base):
    """One call. The columns are those of the request log in the documents. Null, never 0, means unknown.

    Token counts are BigInteger because vendors report them: PostgreSQL must not
    reject the row because one number is absurd.
    """

    __tablename__ = "requests"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    key_id: Mapped[str | None] = mapped_column(String(64))
    org: Mapped[str | None] = mapped_column(String(200))
    user: Mapped[str | None] = mapped_column(String(200))
    route: Mapped[str | None] = mapped_column(String(64))
    dialect: Mapped[str | None] = mapped_column(String(32))
    stream: Mapped[bool | None]
    model_asked: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(64))
    model_served: Mapped[str | None] = mapped_column(String(200))
    attempts: Mapped[int | None]
    status: Mapped[int | None]
    outcome: Mapped[str] = mapped_column(String(32))
    error_type: Mapped[str | None] = mapped_column(String(100))
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    usage_exact: Mapped[bool | None]
    cost_nanousd: Mapped[int | None] = mapped_column(BigInteger)
    latency_ms: Mapped[int | None]
    ttft_ms: Mapped[int | None]
    prompt_hmac: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(128))
    upstream_request_id: Mapped[str | None] = mapped_column(String(128))
    client_ip_hmac: Mapped[str | None] = mapped_column(String(64))

    # These two indexes serve every listing and every usage query with a start. Each further one slows the writer.
    __table_args__ = (
        Index(None, "created_at"),
        Index(None, "key_id", "created_at"),
    )


OUTCOMES = ("ok", "refused", "upstream_error", "timeout", "client_closed", "aborted", "cached", "replayed")


class BudgetAlertRow(Base):
    """A threshold that a budget passed: at most one row per budget, amount, period and threshold in percent.

    ``next_at`` is when its webhook is due. It is null if the webhook was delivered or given up, or if none is set up.
    """

    __tablename__ = "budget_alerts"

    scope_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    period_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    amount_nanousd: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    threshold: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(26), unique=True)
    period: Mapped[str] = mapped_column(String(16))
    resets_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    spent_nanousd: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    attempts: Mapped[int]
    next_at: Mapped[datetime | None] = mapped_column(UTCDateTime, index=True)
    delivered_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
