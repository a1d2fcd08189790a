"""Helpers of the tests: commands in processes, configurations, an independent reference."""
