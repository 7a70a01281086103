"""From JAX functions of parameters to the expressions that `checks.certify` proves things about."""
