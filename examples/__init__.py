"""Examples of what can be built with an exported file."""
