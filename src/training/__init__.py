"""Training: one step as one graph, the state it changes, the loop, checkpoints, evaluation. It knows no model."""
