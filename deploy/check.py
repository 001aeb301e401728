"""Checks what has no tool of its own: the dashboard's queries as PromQL over metrics that exist, and that the Kubernetes files
agree with each other and with the configuration in them."""

import json
import pathlib
import re
import tomllib

import promql_parser
import yaml

HERE = pathlib.Path(__file__).parent


def dashboard():
    board = json.loads((HERE / "grafana/jointly.json").read_text())
    documented = set(re.findall(r"`(jointly_\w+)`", (HERE.parent / "docs/metrics.md").read_text()))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 20
    used = set()
    for query in queries:
        promql_parser.parse(query.replace("$__rate_interval", "5m").replace("$job", ".*"))
        used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"jointly_\w+", query)}
    assert used <= documented, f"not in docs/metrics.md: {used - documented}"
    assert documented <= used | {"jointly_batches_total"}, f"on no panel: {documented - used}"


def kubernetes():
    load = lambda name: yaml.safe_load((HERE / f"kubernetes/{name}.yaml").read_text())
    deployment, service, config = load("deployment"), load("service"), load("config")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        load("pdb")["spec"]["selector"]["matchLabels"],
        load("network-policy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items(), selector
    assert load("hpa")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    toml = tomllib.loads(config["data"]["jointly.toml"])
    seconds = lambda text: float(text.removesuffix("s"))
    grace = seconds(toml["drain"]["delay"]) + seconds(toml["drain"]["limit"])
    assert grace < pod["spec"]["terminationGracePeriodSeconds"], "killed while it drains"
    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert toml["listen"] == [f"0.0.0.0:{port}"]
    metric = load("hpa")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert load("prometheus-adapter")["rules"]["custom"][0]["name"]["as"] == metric
    listed = set(load("kustomization")["resources"])
    present = {path.name for path in (HERE / "kubernetes").glob("*.yaml")}
    assert present - listed == {"kustomization.yaml", "prometheus-adapter.yaml"}


for check in (kubernetes, dashboard):
    check()
    print(f"{check.__name__}: holds")
