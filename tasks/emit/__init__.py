"""Emit: the mix as Parquet in batch order, in two passes, and the ledger that accounts for every row."""
