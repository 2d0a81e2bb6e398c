"""A simulated board on which policies are tried: one scenario, many seeds, and what could have been known."""
