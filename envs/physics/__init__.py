"""What there is and how it moves: arm, table, objects, and their compiled MuJoCo model."""
