"""Tests of what second-order passes of sequences take."""
