"""cs-cadence-poller: polls Cadence for activity tasks, has functions run for them, and answers each once."""
