"""Step rules: from a direction to a step, and the judgement of it."""
