"""The page a bundle carries for people."""
