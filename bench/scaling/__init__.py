"""What a step costs on many ranks: on paper, from graphs and a machine, and measured with gloo."""
