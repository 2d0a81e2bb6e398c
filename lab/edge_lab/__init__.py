"""Where a fleet is tried before it is touched: the demonstration and what it plays."""
