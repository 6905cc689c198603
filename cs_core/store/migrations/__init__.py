"""From one version of the store's schema to the next: a module per step, and the migrator."""
