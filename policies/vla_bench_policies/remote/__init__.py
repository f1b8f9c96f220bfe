"""Policies that run elsewhere: behind `vla-bench serve`, an openpi server or a vla-eval model server."""
