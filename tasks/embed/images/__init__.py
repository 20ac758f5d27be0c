"""Image files without decoding them: what they are, whether they are whole, what decoding them would cost."""
