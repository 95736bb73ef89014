"""sdviz: a workbench for semantic-discrepant (SD) outliers."""

__version__ = "0.1.0"
