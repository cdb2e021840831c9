"""What is trained: one module a recipe, with its losses and its validation figures."""
