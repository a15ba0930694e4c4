"""The text that Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from maskless.interfaces.web.metrics import metrics_text


def test_the_text_is_readable_and_counts_by_state(jobs):
    jobs.totals["done"] = 3
    families = {family.name: family for family in text_string_to_metric_families(metrics_text(jobs).decode())}
    edits = {sample.labels["state"]: sample.value for sample in families["maskless_edits"].samples}
    assert edits == {"done": 3, "failed": 0, "cancelled": 0, "refused": 0}
    assert families["maskless_waiting"].samples[0].value == 0
    assert families["maskless_running"].samples[0].value == 0
