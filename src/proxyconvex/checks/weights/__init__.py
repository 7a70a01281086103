"""What holds for a network on a whole ball of its weights."""
