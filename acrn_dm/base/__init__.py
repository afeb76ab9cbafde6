"""What everything stands on and what knows nothing of devices or guests."""
