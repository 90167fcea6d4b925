"""The use cases. Each opens its own transaction, lets `core.machine` decide, and has `store` write."""
