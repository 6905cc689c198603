"""cs_invoker."""
