"""What there is to beat: the least a Flask endpoint can do with the gateway's request and a reply of its size."""

from flask import Flask, Response, request

from benchmarks.upstream import CHAT_REPLY

app = Flask(__name__)


@app.post("/v1/chat/completions")
def bare() -> Response:
    request.get_data()
    return Response(CHAT_REPLY, content_type="application/json")
