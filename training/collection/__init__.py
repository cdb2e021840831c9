"""Where data comes from: episodes recorded in the simulator, and who acts in them."""
