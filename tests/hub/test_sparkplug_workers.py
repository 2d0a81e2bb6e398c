"""What a worker stored is shown by the Sparkplug exporter of the hub's own process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_stage import CAM, FakeDevice, HubProcess
from interop_stage import GROUP, SpbMessage, TellingBroker, born, measures, spb_messages
from store_stage import PostgresPlace

TEMP_C = "Conditions/temp_c"


@pytest.mark.broker
@pytest.mark.postgres
def test_telemetry_of_the_past_that_a_worker_stored_is_told_as_history(tmp_path: Path, database: PostgresPlace) -> None:
    broker = TellingBroker(tmp_path / "broker")
    options = ("--broker", broker.url, "--sparkplug", GROUP, "--store", database.url, "--workers", "1")
    hub = HubProcess(tmp_path / "hub", *options)
    broker.start()
    try:
        hub.start()
        with broker.listener("spBv1.0/#") as host:

            def told(what: str, look: Callable[[SpbMessage], bool]) -> SpbMessage:
                return host.when(lambda: next((one for one in spb_messages(host.heard) if look(one)), None), what)

            device = FakeDevice(broker.port, None, CAM, connect_as=(broker.HUB, broker.HUB_PASSWORD))
            try:
                born(device)
                birth = told("the birth", lambda one: one.verb == "NBIRTH")
                temp_c, now = birth.metrics[TEMP_C].alias, time.time()
                device.seq = 1  # the first is in the device's spool still
                measures(device, now, temp_c=60.0)
                told("what is now", lambda one: temp_c in one.metrics and one.value(temp_c) == 60.0)
                measures(device, now - 400, temp_c=40.0, seq=1)
                past = told("what was", lambda one: temp_c in one.metrics and one.value(temp_c) == 40.0)
                assert past.metrics[temp_c].is_historical
                assert past.metrics[temp_c].timestamp == int((now - 400) * 1000)
            finally:
                device.close()
    finally:
        hub.stop()
        broker.stop()
