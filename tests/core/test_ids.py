from __future__ import annotations

import time

from llm_service.core.ids import new_id


def test_ids_are_unique_and_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    later = [new_id() for _ in range(1000)]
    assert len(set(later)) == 1000
    assert all(len(item) == 26 and first < item for item in later)
