"""cs_control."""
