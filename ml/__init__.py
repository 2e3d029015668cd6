"""What is learned from data or judges a transaction: features, forest, model, training, modules.

In reading order: dataset, synthetic (traces); segments, features (state and features of a block);
forest, model (the artifact); fraud, velocity (validation modules), discovery (finding them); playback,
metrics, evaluation (measuring); training, default_model (making models, off the vote path).
"""
