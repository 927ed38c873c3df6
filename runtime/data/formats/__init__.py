"""Readers of published files: their bytes become arrays, and damage one error."""
