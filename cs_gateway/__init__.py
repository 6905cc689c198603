"""cs_gateway."""
