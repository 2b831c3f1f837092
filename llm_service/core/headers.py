"""The headers that pass between clients and vendors. Every other header stops here. Names are in lower case.

``docs/headers.md`` explains them with the reasons, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

# From a client to the vendor whose API the client speaks. To another vendor they have no meaning.
TRAVELLING: Final = ("anthropic-version", "anthropic-beta")

# From a client, to choose among the operator's accounts at the vendor. They stop here, and the reply names them.
STOPPED: Final = ("openai-organization", "openai-project", "anthropic-workspace-id", "anthropic-user-profile-id")

# From a vendor to the client, whichever API it speaks. Headers that name the operator's account are left out.
RETURNED: Final = frozenset(
    {
        "openai-processing-ms",
        "openai-version",
        *(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
        *(
            f"anthropic-ratelimit-{unit}-{what}"
            for unit in ("requests", "tokens", "input-tokens", "output-tokens")
            for what in ("limit", "remaining", "reset")
        ),
    }
)
