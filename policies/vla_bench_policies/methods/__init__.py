"""Acceleration methods, one file each."""
