"""A simulated arm on a table with three tasks of the kinds that the seed paper plays: knock over, pick, cover."""
