"""A node's own policy modules: what they are told, how they are asked, what becomes of their answers."""
