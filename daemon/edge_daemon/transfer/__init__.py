"""How a model travels to this device: what a link carries, what each encoding costs, and what is chosen. Pure."""
