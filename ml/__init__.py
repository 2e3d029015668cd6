"""What is learned from data or judges a transaction: features, forest, model, training, modules.

In reading order: dataset, synthetic, cards, variants (traces); definitions (what features are), segments, rings,
features (state and features of a block); forest, model (the artifact); fraud, words, counterfactual, velocity
(validation modules), discovery (finding them); playback, metrics, bands, evaluation, charts, report
(measuring); calibration, training, default_model (making models, off the vote path); foreign (forests of
other libraries, to and from).
"""
