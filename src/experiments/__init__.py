"""Experiments: variants, the jobs that train them, results with their statistics, tables, plots and records."""
