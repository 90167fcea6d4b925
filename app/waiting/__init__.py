"""Requests that wait for a chart to change: the hub they wait in, and what wakes them."""
