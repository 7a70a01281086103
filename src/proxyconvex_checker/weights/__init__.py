"""Certificates of networks on balls of weights."""
