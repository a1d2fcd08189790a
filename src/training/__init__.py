"""Training: phases, one step as one graph, the loop, checkpoints and metrics in a run folder."""
