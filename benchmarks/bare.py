"""The baseline: a Flask endpoint that only reads the gateway's request and sends a reply of the same size."""

from flask import Flask, Response, request

from benchmarks.upstream import CHAT_REPLY

app = Flask(__name__)


@app.post("/v1/chat/completions")
def bare() -> Response:
    request.get_data()
    return Response(CHAT_REPLY, content_type="application/json")
