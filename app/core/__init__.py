"""The chart machine: pure decisions with the standard library alone; no clock, randomness, logging or I/O."""
