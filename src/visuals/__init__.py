"""Pictures: contact sheets of tokens, TensorBoard events, reports of runs."""
