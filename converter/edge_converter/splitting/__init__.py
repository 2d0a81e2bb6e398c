"""Models cut into the segments of a pipeline."""
