"""Planners of the dense-network families: conditional promises, certified ones, and the choice of the architecture."""
