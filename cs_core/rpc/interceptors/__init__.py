"""What happens around every call, one file each. Those of identity are in `cs_core.iam.interceptors`."""
