"""The two servers that the tests here share."""

from tests.support.pair import chart, other, server, shared_url

__all__ = ["chart", "other", "server", "shared_url"]
