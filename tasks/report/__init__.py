"""Report: what a run did, for people. Everything in it comes from the store and the ledger."""
