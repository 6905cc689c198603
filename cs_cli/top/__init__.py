"""`cs top`: what the processes do, looked at again and again."""
