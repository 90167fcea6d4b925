"""The chart machine: pure decisions, standard library only; no clock, no randomness, no logging, no I/O."""
