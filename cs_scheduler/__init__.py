"""cs_scheduler."""
