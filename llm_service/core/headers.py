"""Which headers pass between clients and vendors; everything that is not listed stops here.

``docs/headers.md`` tells it with the reasons, and a test compares the two. Lower-case names.
"""

from __future__ import annotations

from typing import Final

# A client's, to the vendor whose API the client speaks. To another vendor they have no meaning.
TRAVELLING: Final = ("anthropic-version", "anthropic-beta")

# A client's that would choose among the operator's accounts there. They stop, and the reply names them.
STOPPED: Final = ("openai-organization", "openai-project", "anthropic-workspace-id", "anthropic-user-profile-id")

# A vendor's, to the client, whichever API it speaks. Not those that name the operator's account.
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
