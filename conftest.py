"""What every suite here shares: `tests`, `proof` and `tests/e2e`.

`STATE_SERVICE_EXAMPLES` says how many examples Hypothesis tries of each property: `few` (default, `make test`) or
`many` (`make prove ARGS=--short`), or `all`: as `many`, and what takes minutes by itself is tried whole.
"""

from __future__ import annotations

from tests.support.examples import load_profile

_SUPPORT = ("garbage", "compiled", "databases", "pair", "roles", "skips")
pytest_plugins = [f"tests.support.{name}" for name in _SUPPORT]

load_profile()
