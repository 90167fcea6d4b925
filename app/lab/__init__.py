"""The lab: charts are tried before the first machine starts. All of it drives the same `step` as the service."""
