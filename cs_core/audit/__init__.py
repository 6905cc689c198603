"""From the mutation log to the ledger: the relay, and the drivers of the ledger."""
