"""Acceptance tests of the science (design/science.md): `make eval-science`."""
