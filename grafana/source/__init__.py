"""The source of the dashboards under `grafana/dashboards`: `make generate` writes them, `make lint` compares them."""
