"""Train: small models of our own."""
