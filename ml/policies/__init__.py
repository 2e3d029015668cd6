"""Sample policy modules: each a node's own rule, none of them part of consensus."""
