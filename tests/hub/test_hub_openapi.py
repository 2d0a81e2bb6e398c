"""The API is what its description says: made-up requests, good and bad, are answered as it promises."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hub_stage import HubProcess

pytestmark = pytest.mark.broker

# Ends never; and what a stranger does to an account is not for made-up requests to try twenty times a second.
LEFT_OUT = {"GET /api/v1/stream", "POST /api/v1/session"}
SHORT = 10


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub"), "--requests-per-s", "0") as process:
        yield process


def ask(hub: HubProcess, *, examples: int) -> Counter[str]:
    """Ask each operation so many made-up questions; how many were answered, by operation."""
    schemathesis: Any = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
        use_after_free,
    )

    from edge_hub.web.app import ROUTES
    from edge_hub.web.openapi import document

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        negative_data_rejection,
        use_after_free,
    ]
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document(ROUTES))))
    asked: Counter[str] = Counter()

    def answered(case: Any) -> None:
        headers = {"Authorization": f"Bearer {hub.token}"}
        case.call_and_validate(base_url=f"http://127.0.0.1:{hub.http}", headers=headers, checks=checks)
        asked[case.operation.label] += 1

    how = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < SHORT,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.label not in LEFT_OUT:
            for mode in schemathesis.GenerationMode:
                # What takes nothing cannot be asked wrongly.
                with contextlib.suppress(Unsatisfiable):
                    how(given(case=operation.as_strategy(generation_mode=mode))(answered))()
    return asked


def test_made_up_requests_are_answered_as_the_description_says(hub: HubProcess) -> None:
    asked = ask(hub, examples=3)
    assert len(asked) > 35
    with hub.client() as client:
        assert client.health().ok


@pytest.mark.schemathesis
@pytest.mark.timeout(1800)
def test_thousands_of_made_up_requests_are(hub: HubProcess) -> None:
    asked = ask(hub, examples=50)
    assert sum(asked.values()) > 1500
    with hub.client() as client:
        assert client.health().ok


def test_the_description_has_every_route_and_says_who_may(hub: HubProcess) -> None:
    from edge_hub.web.app import ROUTES

    with hub.client() as client:
        told = client.openapi()
    assert told["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, one in told["paths"].items() for method in one} == {
        (route.method, route.path) for route in ROUTES
    }
    assert len({one["operationId"] for path in told["paths"].values() for one in path.values()}) == len(ROUTES)
    assert told["paths"]["/api/v1/tokens"]["post"]["x-role"] == "admin"
    assert "\\A" not in json.dumps(told)
