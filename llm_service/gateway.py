"""The path of a call. Read this file first.

    edge (api/) reads a Call
      -> Gateway.answer: one journal entry around
           accounting: what the call may take is held, or the call refused
           json_answers: JSON checked, mended, asked for once more; off unless wanted
             -> routing: targets, retries, fallback until the first event
               -> providers: one vendor's answer as events
      <- edge writes the events in the client's dialect

Streamed and plain are the same path: a plain answer is an iterator of one
``Finished``. Whatever may refuse the call does so before the first event.
Success, failure and a caller that hangs up all leave through the entry's
``__exit__``, so every call has its row.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_service.billing.reconciler import Accounts
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.events import Admitted, Event
from llm_service.json_answers import checking as json_answers
from llm_service.observability.journal import Journal
from llm_service.providers.routing import Router


class Gateway:
    def __init__(self, journal: Journal, accounts: Accounts, router: Router) -> None:
        self._journal, self._accounts, self._router = journal, accounts, router

    def answer(self, call: Call, cancel: Cancel) -> Iterator[Event]:
        """The call's events: first ``Admitted``, last one ``Finished``.

        Raises, out of the iterator: any ``ServiceError``.
        """
        with self._journal.entry(call, call.arrived) as entry:
            admission = self._accounts.admit(call, entry)
            yield Admitted(admission.tightest)
            for event in json_answers.checked(admission.call, self._router.events, cancel):
                entry.see(event)
                yield event
