"""What each theorem promises, restated on purpose from its premises."""
