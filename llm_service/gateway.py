"""The path of a call. Read this file first.

    edge (api/) reads a Call, and the catalogue resolves its targets
      -> Gateway.answer
           observability: the recorder watches the call and writes its row
           billing: what the call may take is held, or the call is rejected; settled when the call ends
           json_answers: JSON is checked and repaired, or asked for once more; off unless wanted
             -> routing: targets, retries, fallback until the first event
               -> providers: one vendor's answer as events
      <- edge writes the events in the client's format

Streamed and plain answers are the same path: a plain answer is an iterator of one ``Finished``. Whatever may reject
the call does so before the first event. Success, failure and a client that disconnects all leave through the same
``__exit__``: every call is settled, and every call has its row.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_service.billing.admission import Admission
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.events import Admitted, Event, Finished
from llm_service.json_answers import checking as json_answers
from llm_service.observability.call_recorder import CallRecorder
from llm_service.observability.journal import Journal
from llm_service.providers.routing import Router


class Gateway:
    def __init__(self, journal: Journal, admission: Admission, router: Router) -> None:
        self._journal, self._admission, self._router = journal, admission, router

    def answer(self, call: Call, cancel: Cancel) -> Iterator[Event]:
        """The call's events: the first is ``Admitted``, the last is ``Finished``.

        Raises, out of the iterator: any ``ServiceError``.
        """
        with CallRecorder(self._journal, call) as recorder, self._admission.admit(call, recorder) as admitted:
            yield Admitted(admitted.tightest)
            for event in json_answers.checked(admitted.call, self._router.events, cancel):
                recorder.see(event)
                if type(event) is Finished:
                    # Before the event is passed on: a client that has the whole answer may send its next call at
                    # once, and what this call held must be free by then. Any other end settles in ``__exit__``.
                    admitted.settle()
                    recorder.write()
                yield event
