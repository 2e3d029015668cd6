"""What `assay model` does: files (data, models, progress), training, measuring, exchange, inspection."""
