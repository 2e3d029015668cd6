"""The red team: fraudsters who know the model, and what they get past it. `assay redteam`."""
