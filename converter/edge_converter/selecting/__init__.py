"""Which variants to put on a board, and which board to choose for a model."""
