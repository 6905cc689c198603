"""cs_sandbox."""
