"""How bytes rest: shards, fingerprints, commit points, exchange, ledger, manifests. Knows nothing of methods."""
