"""Graph transformations: tangents, adjoints, second differentials, a leading axis of copies."""
