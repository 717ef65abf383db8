"""What watches a suite, from code: Grafana dashboards, SLO rules and alerts for Prometheus. `make dashboards` writes them."""
