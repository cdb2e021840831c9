"""JEPALatent-v0: the learned dynamics as a Gymnasium environment, single and batched."""
