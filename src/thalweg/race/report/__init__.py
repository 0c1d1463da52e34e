"""The report of a race: one HTML file that needs no network, with the verdicts first and the plots and data behind them."""

from thalweg.race.report.page import write_report

__all__ = ["write_report"]
