"""Speed: interleaved timing of schedules, of their token operations alone, and of other implementations."""
