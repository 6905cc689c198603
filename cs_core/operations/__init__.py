"""What operators ask of an installation, answered from its store: how much waits, why, and who works on it."""
