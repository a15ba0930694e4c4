"""The whole server: its schema fuzzed, and the process started, stopped and continued as its owner does."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error


@pytest.mark.slow
def test_requests_made_from_the_schema_and_against_it_find_no_server_error(server):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=20, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
        def never_5xx(case):
            answer = case.call(timeout=30)
            case.validate_response(answer, checks=[not_a_server_error])
            tried[case.path] = tried.get(case.path, 0) + 1

        never_5xx()
    assert len(tried) >= 12 and sum(tried.values()) >= 100, tried
