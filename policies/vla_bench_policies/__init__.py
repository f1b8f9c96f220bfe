"""Adapters of policies, and the acceleration methods."""
