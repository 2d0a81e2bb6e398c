"""Clients and servers of others: Triton's client asks `edge serve`, our engine asks MLServer, each in its own venv.

The environments are made from the package index below `build/` of the checkout, and kept there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remote_stage import START_S, TINY, ServeProcess, served

from edge_sdk import RemoteEngine
from edge_sdk.errors import RemoteRefusedError

pytestmark = [pytest.mark.thirdparty, pytest.mark.timeout(900)]

BUILD = Path(__file__).resolve().parents[2] / "build" / "venvs"
TRITON = ("tritonclient[http,grpc]==2.73.0",)
MLSERVER = ("mlserver==1.7.1",)
INSTALL_S = 600
# MLServer runs up to here.
PYTHONS = ("3.12", "3.11", "3.10")


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The Python of an environment with these packages; made once, and anew when they change."""
    folder, wanted = BUILD / f"thirdparty-{name}", "\n".join(packages)
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = sys.executable if own in PYTHONS else next(filter(None, (shutil.which(f"python{v}") for v in PYTHONS)), None)
    if base is None:
        pytest.skip(f"no Python of {', '.join(PYTHONS)} here")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", str(folder)], check=True, timeout=INSTALL_S)
    uv = Path(sys.executable).parent / "uv"
    install = (
        [str(uv), "pip", "install", "--python", str(python)] if uv.exists() else [str(python), "-m", "pip", "install"]
    )
    subprocess.run([*install, "-q", *packages], check=True, timeout=INSTALL_S)
    stamp.write_text(wanted)
    return python


# ---------------------------------------------------------------------------------------------- Triton's client

ASKS = """
import json, sys
import numpy as np
kind, address = sys.argv[1:]
if kind == "http":
    import tritonclient.http as triton
else:
    import tritonclient.grpc as triton
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("two_by_two") and client.is_model_ready("two_by_two", "1")
more = {} if kind == "http" else {"as_json": True}
told = {"server": client.get_server_metadata(**more), "model": client.get_model_metadata("two_by_two", **more)}
arrays = {"a": np.array([[1, 2]], np.float32), "b": np.array([[3, 5]], np.float32)}

def inputs(**options):
    tensors = []
    for name, array in arrays.items():
        tensors.append(triton.InferInput(name, array.shape, "FP32"))
        tensors[-1].set_data_from_numpy(array, **options)
    return tensors

ways = [{"binary_data": True}, {"binary_data": False}] if kind == "http" else [{}]
told["answers"] = []
for way in ways:
    for outputs in (None, [triton.InferRequestedOutput("product", **way)]):
        answer = client.infer("two_by_two", inputs(**way), model_version="1", request_id="mine", outputs=outputs)
        found = [answer.as_numpy(name) for name in ("total", "product")]
        told["answers"].append([None if each is None else each.tolist() for each in found])
wrong = inputs()
wrong[0] = triton.InferInput("a", [1, 3], "FP32")
wrong[0].set_data_from_numpy(np.ones((1, 3), np.float32))
for name, tensors in (("two_by_two", wrong), ("other", inputs())):
    try:
        client.infer(name, tensors)
    except triton.InferenceServerException as error:
        told.setdefault("errors", []).append(error.message())
client.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    place = tmp_path_factory.mktemp("served")
    with served(place, TINY / "two_by_two.tflite", "--grpc-port", "0") as server:
        yield server
        assert server.end() == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_client_is_answered(server: ServeProcess, kind: str, tmp_path: Path) -> None:
    python = environment("triton", TRITON)
    address = (server.url if kind == "http" else server.told["grpc"]).partition("//")[2]
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    done = subprocess.run(
        [str(python), str(script), kind, address], capture_output=True, text=True, check=False, timeout=START_S
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "binary_tensor_data" in told["server"]["extensions"]
    assert [each["name"] for each in told["model"]["inputs"]] == ["a", "b"]
    assert told["answers"] == [[[[4, 7]], [[3, 10]]], [None, [[3, 10]]]] * (2 if kind == "http" else 1)
    shape, name = told["errors"]
    assert "takes [1, 2]" in shape
    assert "two_by_two" in name


# -------------------------------------------------------------------------------------------------------- MLServer

RUNTIME = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Doubler(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        arrays = [NumpyCodec.decode_input(each) for each in payload.inputs]
        outputs = [NumpyCodec.encode_output(name, array * 2) for name, array in zip(("y", "n"), arrays)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
"""


@dataclass(kw_only=True)
class MlServer:
    http: str
    grpc: str


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlServer]:
    """MLServer with a model that doubles floats and integers."""
    python, place = environment("mlserver", MLSERVER), tmp_path_factory.mktemp("mlserver")
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        http, grpc = (each.getsockname()[1] for each in taken)

    def tensor(name: str, datatype: str) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [-1, 4]}

    (place / "runtime.py").write_text(RUNTIME)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "parallel_workers": 0}
    (place / "settings.json").write_text(json.dumps(settings | {"metrics_endpoint": None}))
    model = {
        "name": "doubler",
        "implementation": "runtime.Doubler",
        "inputs": [tensor("x", "FP32"), tensor("m", "INT32")],
        "outputs": [tensor("y", "FP32"), tensor("n", "INT32")],
    }
    (place / "model-settings.json").write_text(json.dumps(model))
    log = place / "log"
    command = [str(python.with_name("mlserver")), "start", str(place)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=place) as process:
        try:
            end_s = time.monotonic() + START_S
            while b"startup complete" not in log.read_bytes() or b"gRPC server running" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end_s, log.read_text()
                time.sleep(0.05)
            yield MlServer(http=f"http://127.0.0.1:{http}", grpc=f"grpc://127.0.0.1:{grpc}")
        finally:
            process.terminate()
            process.wait(START_S)


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_our_engine_is_answered_by_mlserver(mlserver: MlServer, way: str) -> None:
    address = getattr(mlserver, way)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    m = np.arange(12, dtype=np.int32).reshape(3, 4)
    with RemoteEngine(address, model="doubler") as remote:
        assert [(each.name, each.shape, each.dtype) for each in remote.outputs] == [
            ("y", (-1, 4), "float32"),
            ("n", (-1, 4), "int32"),
        ]
        y, n = remote.run([x, m])
        assert np.array_equal(y, x * 2)
        assert np.array_equal(n, m * 2)
        assert remote.run([x[0], m[0]])[1].shape == (4,)
    with pytest.raises(RemoteRefusedError) as caught:
        RemoteEngine(address, model="other")
    assert caught.value.status == 404
