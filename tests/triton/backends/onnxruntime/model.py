"""Stands for Triton's ONNX Runtime backend, of which no build can be had without its containers.

Triton starts it for any model whose configuration says `backend: "onnxruntime"`. It knows what the
exported configurations say for a CPU, and waits before each batch while the file named by
`STAND_IN_HOLD` exists, so that a test can fill the queue.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = _number(config, "intra_op_thread_count")
        options.inter_op_num_threads = _number(config, "inter_op_thread_count")
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            folder / config["default_model_filename"], options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [entry["name"] for entry in config["input"]]
        self._output = config["output"][0]["name"]
        self._hold = Path(os.environ["STAND_IN_HOLD"])

    def execute(self, requests: list[Any]) -> list[Any]:
        while self._hold.exists():
            time.sleep(0.005)
        feeds = {
            name: np.concatenate(
                [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for r in requests]
            )
            for name in self._inputs
        }
        (scores,) = self._session.run([self._output], feeds)
        rows = [
            pb_utils.get_input_tensor_by_name(r, self._inputs[0]).as_numpy().shape[0]
            for r in requests
        ]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self._output, part)])
            for part in np.split(scores, np.cumsum(rows)[:-1])
        ]


def _number(config: dict[str, Any], key: str) -> int:
    return int(config["parameters"][key]["string_value"])
