"""cs-invoker-pool: takes invocation requests from the queue, runs them in cells, owns their terminal state."""
