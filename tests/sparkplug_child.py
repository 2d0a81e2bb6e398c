"""Somebody else's Sparkplug library, in an environment of its own: reads an edge node's messages, writes a command.

Messages come as lines of JSON, `{"verb", "payload"}` in base64, in the order in which they were sent. Each is answered
with what the library read; `{"write": NAME, "value": ...}` with a command's payload.
"""

from __future__ import annotations

import base64
import json
import sys

import pysparkplug

birth = None
for line in sys.stdin:
    told = json.loads(line)
    if "write" in told:
        value, name = told["value"], told["write"]
        datatype = pysparkplug.DataType.BOOLEAN if isinstance(value, bool) else pysparkplug.DataType.STRING
        now = pysparkplug.get_current_timestamp()
        metric = pysparkplug.Metric(timestamp=now, name=name, datatype=datatype, value=value)
        payload = pysparkplug.NCmd(timestamp=now, metrics=(metric,)).encode(include_dtypes=True)
        answer: dict[str, object] = {"payload": base64.b64encode(payload).decode()}
    else:
        raw = base64.b64decode(told["payload"])
        kind = {"NBIRTH": pysparkplug.NBirth, "NDATA": pysparkplug.NData, "NDEATH": pysparkplug.NDeath}[told["verb"]]
        read = kind.decode(raw, birth=birth if told["verb"] == "NDATA" else None)
        if told["verb"] == "NBIRTH":
            birth = read
        found = (read.bd_seq_metric,) if told["verb"] == "NDEATH" else read.metrics
        answer = {
            "seq": getattr(read, "seq", None),
            "metrics": {each.name: [each.datatype.name, each.value, bool(each.is_historical)] for each in found},
        }
    print(json.dumps(answer), flush=True)
