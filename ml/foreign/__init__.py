"""Forests of other libraries, to and from: forest (what they have in common), a reader each, onnx_writer.

A reader turns a file or an estimator into a `SourceForest`; `convert_forest` makes it the integer forest,
or refuses it with its reason. The libraries themselves are needed to prove equality, not to read.
"""
