"""Whether optimizers may compile their update."""

from __future__ import annotations

import contextvars

#: True where nothing is compiled that wasn't asked to be, for whoever looks at single operations.
EAGER = contextvars.ContextVar("EAGER", default=False)
