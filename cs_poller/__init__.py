"""cs_poller."""
