"""The conformance kit: does a module keep the contract it was written for? `assay module check`."""
