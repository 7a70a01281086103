"""Audit, certificate and the HTML report."""
