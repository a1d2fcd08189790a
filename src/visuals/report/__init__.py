"""A run, or several beside each other, as one page of HTML that needs nothing but itself."""

from src.visuals.report.page import write_report

__all__ = ["write_report"]
