"""cs_cli."""
