"""`edge serve`: a model of this machine for others, over the Open Inference Protocol v2."""
