"""cs_core."""
