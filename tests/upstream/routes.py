"""How each path is answered: see the table ``ROUTES``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openai.types.responses.input_token_count_params import InputTokenCountParams

from tests.upstream import anthropic_rules, completions, embeddings, openai_rules, replay, servers
from tests.upstream import responses as responses_api
from tests.upstream.answer import answer as make_answer
from tests.upstream.answer import count_prompt
from tests.upstream.anthropic_wire import Anthropic, compact
from tests.upstream.http1 import Connection, Request
from tests.upstream.ledger import Bill, SeenRequest
from tests.upstream.openai_wire import OpenAI
from tests.upstream.rejection import Account, Rejected
from tests.upstream.step_player import StepPlayer
from tests.upstream.steps import Step
from tests.upstream.wire import Vendor

if TYPE_CHECKING:
    from tests.upstream.server import Upstream

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
ANTHROPIC_BODY_LIMIT = 32 * 1024 * 1024
INPUT_TOKENS_FIELDS = frozenset(InputTokenCountParams.__annotations__)
MODELS = {
    "openai": ("gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "text-embedding-3-small"),
    "anthropic": ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5-20251001"),
}


class Exchange:
    """One request and what a route needs to answer it."""

    def __init__(
        self, upstream: Upstream, connection: Connection, request: Request, seen: SeenRequest, vendor: Vendor
    ) -> None:
        self.upstream, self.connection, self.request = upstream, connection, request
        self.seen, self.vendor = seen, vendor
        self.account: Account = upstream.account
        seen.request_id = vendor.request_id(seen.id)
        self.headers = vendor.headers(seen.request_id, seen.id)

    def player(self, step: Step) -> StepPlayer:
        return StepPlayer(self.connection, self.seen, self.upstream.ledger, self.vendor, step)

    def reject(self, rejected: Rejected, step: Step | None = None) -> None:
        """Answer with an HTTP error in the vendor's own format."""
        step = step or Step()
        if self.vendor.name == "anthropic" and (rejected.status == 429 or rejected.status >= 500):
            self.headers.setdefault("x-should-retry", "true")
        body = self.vendor.error(rejected, self.seen.request_id) if step.body is None else step.body.encode()
        headers = {**self.headers, "content-type": step.content_type or JSON, **step.headers}
        self.player(step).plain(rejected.status, headers, body, "rejected")

    def reply(self, document: dict[str, Any]) -> None:
        self.player(Step()).plain(200, {**self.headers, "content-type": JSON}, compact(document), "answered")

    def generate(self, body: dict[str, Any], step: Step) -> None:
        """Play the step: an error, a recording, a stream or a plain answer."""
        vendor, seen = self.vendor, self.seen
        common = vendor.common_request(body)
        player = self.player(step)
        player.prompt = common.last_user
        streaming = bool(body.get("stream"))
        if step.fault != "error" and step.status is not None and step.status >= 300:
            self.reject(player.rejection(step.status), step)
            return
        if step.fault == "error" and not streaming:
            self.reject(player.rejection(step.status or 500), step)
            return
        seen.answer_id = step.id or vendor.answer_id(seen.id)
        if body.get("store") is not False:
            self.account.kept.add(seen.answer_id)
        headers = {**self.headers, **step.headers}
        if step.replay is not None:
            self._replay(player, step, headers)
            return
        answer = make_answer(step, common, body)
        if streaming and step.body is None:
            headers = {"content-type": step.content_type or EVENTS, "cache-control": "no-cache", **headers}
            player.stream(headers, vendor.events(body, step, answer, seen.answer_id), answer.bill)
            return
        headers = {"content-type": step.content_type or JSON, **headers}
        reply = (
            step.body.encode() if step.body is not None else compact(vendor.reply(body, step, answer, seen.answer_id))
        )
        seen.text_sent = answer.text
        player.plain(step.status or 200, headers, reply, "answered", answer.bill)

    def _replay(self, player: StepPlayer, step: Step, headers: dict[str, str]) -> None:
        recording = replay.load(step.replay or "")
        bill = self.vendor.bill(recording.reply)
        if recording.events is not None:
            headers = {"content-type": EVENTS, "cache-control": "no-cache", **headers}
            player.stream(headers, recording.events, bill)
            return
        outcome = "answered" if recording.status < 400 else "rejected"
        player.plain(recording.status, {"content-type": JSON, **headers}, recording.body, outcome, bill)


Route = Callable[[Exchange], None]


def _with_step(
    exchange: Exchange, body: dict[str, Any], check: Callable[[], None], then: Callable[[Step], None]
) -> None:
    """Take a step, let the vendor check the request, then play the step."""
    model = body.get("model")
    try:
        step = exchange.upstream.take(model if isinstance(model, str) else None, exchange.request.path)
    except ValueError as error:
        raise Rejected(400, "invalid_request_error", str(error), "model") from None
    if not step.lenient:
        try:
            check()
        except Rejected:
            exchange.upstream.give_back(step)
            raise
    then(step)


def messages(exchange: Exchange) -> None:
    anthropic_rules.check_access(exchange.request, exchange.account)
    if len(exchange.request.body) > ANTHROPIC_BODY_LIMIT:
        raise Rejected(413, "request_too_large", "Request exceeds the maximum size")
    body = anthropic_rules.read_body(exchange.request)
    _with_step(
        exchange,
        body,
        lambda: anthropic_rules.check_body(exchange.request, body, exchange.account),
        lambda step: exchange.generate(body, step),
    )


def count_tokens(exchange: Exchange) -> None:
    anthropic_rules.check_access(exchange.request, exchange.account)
    body = anthropic_rules.read_body(exchange.request)

    def count(step: Step) -> None:
        if step.status is not None and step.status >= 300:
            exchange.reject(exchange.player(step).rejection(step.status), step)
            return
        tokens = step.input_tokens if step.input_tokens is not None else count_prompt(body)
        headers = {**exchange.headers, "content-type": JSON, **step.headers}
        sent = compact({"input_tokens": tokens}) if step.body is None else step.body.encode()
        exchange.player(step).plain(200, headers, sent, "answered")

    _with_step(
        exchange,
        body,
        lambda: anthropic_rules.check_body(exchange.request, body, exchange.account, counting=True),
        count,
    )


def chat(exchange: Exchange) -> None:
    openai_rules.check_access(exchange.request, exchange.account)
    body = openai_rules.read_body(exchange.request)
    _with_step(
        exchange,
        body,
        lambda: openai_rules.check_chat(body, exchange.account),
        lambda step: exchange.generate(body, step),
    )


def responses(exchange: Exchange) -> None:
    openai_rules.check_access(exchange.request, exchange.account)
    body = openai_rules.read_body(exchange.request)
    _with_step(
        exchange,
        body,
        lambda: responses_api.check(body, exchange.account),
        lambda step: exchange.generate(body, step),
    )


def input_tokens(exchange: Exchange) -> None:
    openai_rules.check_access(exchange.request, exchange.account)
    body = openai_rules.read_body(exchange.request)

    def check() -> None:
        for name in body:
            if name not in INPUT_TOKENS_FIELDS | exchange.account.fields:
                raise Rejected(400, openai_rules.INVALID, f"Unknown parameter: '{name}'.", name, "unknown_parameter")

    def count(step: Step) -> None:
        if step.status is not None and step.status >= 300:
            exchange.reject(exchange.player(step).rejection(step.status), step)
            return
        parts = {"messages": body.get("input"), "system": body.get("instructions"), "tools": body.get("tools")}
        tokens = step.input_tokens if step.input_tokens is not None else count_prompt(parts)
        document = {"object": "response.input_tokens", "input_tokens": tokens}
        sent = compact(document) if step.body is None else step.body.encode()
        exchange.player(step).plain(200, {**exchange.headers, "content-type": JSON, **step.headers}, sent, "answered")

    _with_step(exchange, body, check, count)


def complete(exchange: Exchange) -> None:
    openai_rules.check_access(exchange.request, exchange.account)
    body = openai_rules.read_body(exchange.request)
    _with_step(
        exchange, body, lambda: completions.check(body, exchange.account), lambda step: exchange.generate(body, step)
    )


def embed(exchange: Exchange) -> None:
    openai_rules.check_access(exchange.request, exchange.account)
    body = openai_rules.read_body(exchange.request)

    def answer(step: Step) -> None:
        player = exchange.player(step)
        player.prompt = str(body["input"])
        if step.status is not None and step.status >= 300:
            exchange.reject(player.rejection(step.status), step)
            return
        document = embeddings.reply(body, step.input_tokens)
        if step.usage is None:
            del document["usage"]
        sent = compact(document) if step.body is None else step.body.encode()
        headers = {"content-type": step.content_type or JSON, **exchange.headers, **step.headers}
        player.plain(200, headers, sent, "answered", Bill(input_tokens=embeddings.count(body)))

    _with_step(exchange, body, lambda: embeddings.check(body, exchange.account), answer)


def compatible_chat(exchange: Exchange) -> None:
    """Answer as Ollama and vLLM do. They check little more than that the body has messages."""
    body = openai_rules.read_body(exchange.request)
    if not isinstance(body.get("messages"), list):
        raise Rejected(422, "invalid_request_error", "Field required: messages")
    _with_step(exchange, body, lambda: None, lambda step: exchange.generate(body, step))


def server_of_a_row(exchange: Exchange) -> None:
    """Answer as the strict server of a ready row. The end of the path says in which format."""
    path = exchange.request.path
    if path.endswith("/chat/completions"):
        exchange.vendor = OpenAI(plain=True)
    elif path.endswith("/responses"):
        exchange.vendor = responses_api.Responses()
    elif path.endswith(("/messages", "rawPredict", "streamRawPredict")):
        exchange.vendor = Anthropic()
    else:
        raise Rejected(404, "invalid_request_error", "Not found")
    body = servers.check(exchange.request)
    body.setdefault("model", path.rpartition("/")[2].partition(":")[0])
    _with_step(exchange, body, lambda: None, lambda step: exchange.generate(body, step))


def _anthropic_model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-02-04T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200000,
        "max_tokens": 64000,
    }


def _openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1715367049, "owned_by": "system"}


def models(exchange: Exchange) -> None:
    """Answer /v1/models, which both vendors serve. The anthropic-version header shows which one is asked."""
    name_asked = exchange.request.path.partition("/models")[2].strip("/")
    names = MODELS[exchange.vendor.name]
    if exchange.vendor.name == "anthropic":
        anthropic_rules.check_access(exchange.request, exchange.account)
        if name_asked:
            if name_asked not in names:
                raise Rejected(404, "not_found_error", f"model: {name_asked}")
            exchange.reply(_anthropic_model(name_asked))
            return
        data = [_anthropic_model(name) for name in names]
        exchange.reply({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]})
        return
    openai_rules.check_access(exchange.request, exchange.account)
    if name_asked:
        if name_asked not in names:
            raise Rejected(
                404, "invalid_request_error", f"The model '{name_asked}' does not exist", "model", "model_not_found"
            )
        exchange.reply(_openai_model(name_asked))
        return
    exchange.reply({"object": "list", "data": [_openai_model(name) for name in names]})


#: (method, path) -> (vendor, route). A path that ends in "/" is a prefix. If the vendor is None, the request is
#: Anthropic's when it has an anthropic-version header, and OpenAI's otherwise.
ROUTES: dict[tuple[str, str], tuple[Vendor | None, Route]] = {
    ("POST", "/v1/messages"): (Anthropic(), messages),
    ("POST", "/v1/messages/count_tokens"): (Anthropic(), count_tokens),
    ("POST", "/v1/chat/completions"): (OpenAI(), chat),
    ("POST", "/v1/responses"): (responses_api.Responses(), responses),
    ("POST", "/v1/responses/input_tokens"): (OpenAI(), input_tokens),
    ("POST", "/v1/completions"): (completions.Completions(), complete),
    ("POST", "/v1/embeddings"): (OpenAI(), embed),
    ("POST", "/compatible/v1/chat/completions"): (OpenAI(plain=True), compatible_chat),
    ("POST", servers.PREFIX): (OpenAI(plain=True), server_of_a_row),
    ("GET", "/v1/models"): (None, models),
    ("GET", "/v1/models/"): (None, models),
}


def answer(upstream: Upstream, connection: Connection, request: Request, seen: SeenRequest) -> None:
    """Answer one request.

    Raises:
        ClientGone, OSError: the connection has ended.
    """
    by_header = Anthropic() if "anthropic-version" in request.headers else OpenAI()
    entry = ROUTES.get((request.method, request.path))
    if entry is None:
        prefixes = [key for key in ROUTES if key[1].endswith("/") and request.path.startswith(key[1])]
        entry = ROUTES[prefixes[0]] if prefixes and prefixes[0][0] == request.method else None
    vendor = (entry and entry[0]) or by_header
    exchange = Exchange(upstream, connection, request, seen, vendor)
    try:
        if request.too_large:
            raise Rejected(413, "request_too_large", "Request exceeds the maximum size")
        if entry is None:
            raise Rejected(404, *_unknown(vendor, request))
        entry[1](exchange)
    except Rejected as rejected:
        exchange.reject(rejected)


def _unknown(vendor: Vendor, request: Request) -> tuple[str, str]:
    if vendor.name == "anthropic":
        return "not_found_error", "Not found"
    return "invalid_request_error", f"Invalid URL ({request.method} {request.path})"
