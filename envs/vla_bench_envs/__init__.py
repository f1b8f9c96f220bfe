"""Environments of the benchmark; importing it makes them known to Gymnasium."""

import vla_bench  # noqa: F401 - registers every installed environment
