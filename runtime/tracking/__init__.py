"""Trackers: who follows a run event by event, through one stream."""
