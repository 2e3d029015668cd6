"""A policy from an ONNX model: any library's classifier as this node's own opinion, floats and all.

    assay node --policy onnx-model=model=mine.onnx,refuse_at=0.99,hold_at=0.9

The model's first input is float32[n, 8], a row per transaction with the columns FEATURES; its last output is
float[n], [n, 1] or [n, 2] (the last column counts): a risk from 0 to 1. It runs on one thread; the
node's deadline for a batch holds for it as for any policy.
Invariant: what is no number from 0 to 1 is the model's failure and never an opinion.
Needs onnxruntime: pip install 'assay-node[onnx]'. Leaves out: state; a model sees one transaction at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from ml.policy import ALLOW, Opinion, PolicyBatch, hold, refuse
from ml.policy_settings import Settings

NAME: Final = "onnx-model"
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
# Integers above 2^24 lose their last digits in float32: amounts of more than 16 million units, by 6e-8 of them.
FEATURES: Final = (
    "amount",  # smallest units
    "fee",  # smallest units
    "kind",  # 0: a transfer (consensus/transaction.py)
    "nonce",
    "is_to_self",  # 1 when sender and receiver are one
    "hour",  # of the transaction's own timestamp, 0 to 23
    "age_s",  # seconds that its timestamp lies behind the chain's clock; negative when ahead
    "score",  # the chain's own, 0 to 10000
)


class OnnxModel:
    """A Policy over an onnxruntime session."""

    def __init__(self, session: Any, refuse_at: float, hold_at: float) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[-1].name
        self._refuse_at = refuse_at
        self._hold_at = hold_at

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        if not len(batch):
            return []
        answer = self._session.run([self._output], {self._input: compute_features(batch)})[0]
        return [self._judge(risk) for risk in read_risks(answer, len(batch)).tolist()]

    def _judge(self, risk: float) -> Opinion:
        if risk >= self._refuse_at:
            return refuse(f"risk {risk:.3f} is at least {self._refuse_at:g}")
        return hold(f"risk {risk:.3f} is at least {self._hold_at:g}") if risk >= self._hold_at else ALLOW


def compute_features(batch: PolicyBatch) -> NDArray[np.float32]:
    """float32[n, 8], the columns FEATURES."""
    rows = [
        (
            tx.amount,
            tx.fee,
            tx.kind,
            tx.nonce,
            tx.sender == tx.receiver,
            tx.timestamp_ms % DAY_MS // HOUR_MS,
            (batch.clock_ms - tx.timestamp_ms) / 1000,
            score,
        )
        for tx, score in zip(batch.transactions, batch.score.tolist(), strict=True)
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, len(FEATURES))


def read_risks(answer: Any, count: int) -> NDArray[np.float64]:
    """float64[n] from the model's output. Raises ValueError for anything but n numbers from 0 to 1."""
    values = np.asarray(answer, dtype=np.float64)
    if values.ndim == 2 and values.shape[1] in (1, 2):
        values = values[:, -1]
    if values.shape != (count,):
        raise ValueError(f"the model answers {np.shape(answer)} for {count} transactions")
    if not bool(np.all((values >= 0) & (values <= 1))):  # false for NaN too
        raise ValueError("the model answers a risk that is not within 0 to 1")
    return values


def load(values: Mapping[str, Any]) -> OnnxModel:
    """Settings: model (a file), refuse_at (0.99), hold_at (1: holds nothing). Raises Rejected."""
    settings = Settings(NAME, values)
    path = settings.get_path("model")
    refuse_at, hold_at = settings.get_share("refuse_at", 0.99), settings.get_share("hold_at", 1.0)
    settings.check_all_read()
    try:
        import onnxruntime
    except ImportError:
        raise Rejected(
            "onnxruntime is not installed", field=f"policy {NAME}", mend="pip install 'assay-node[onnx]'"
        ) from None
    if not path.is_file():
        raise Rejected("does not exist", field=str(path), mend="name an .onnx file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # beside a node that needs its cores
    options.log_severity_level = 3  # errors; its warnings would go to stderr past the node's log
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions share no narrower base
        line = str(error).splitlines()[0][:160]
        raise Rejected(f"is no model that onnxruntime runs ({line})", field=str(path)) from None
    width = session.get_inputs()[0].shape[-1] if session.get_inputs() else None
    if len(session.get_inputs()) != 1 or (isinstance(width, int) and width != len(FEATURES)):
        raise Rejected(
            f"must take one input of float32[n, {len(FEATURES)}]",
            field=str(path),
            mend=f"columns {', '.join(FEATURES)}",
        )
    return OnnxModel(session, refuse_at, hold_at)
