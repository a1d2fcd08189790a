"""Schedules: the notation, the plan of static integers, phases, and the search for one. Never imports MindSpore."""

from src.schedules.geometry import Geometry
from src.schedules.notation import Route, Schedule, Stage, parse
from src.schedules.phases import Phase, plan_phases
from src.schedules.plan import Drop, Plan, resolve

__all__ = ["Drop", "Geometry", "Phase", "Plan", "Route", "Schedule", "Stage", "parse", "plan_phases", "resolve"]
