"""From another library's file to a model, and the sentence that proves it.

What the source does not hold (definitions, scale) comes from a model that is given; its score says what the
source says, and nothing is refused until thresholds are chosen on data (`ml.calibration.calibrate_model`).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

from consensus.errors import Rejected
from consensus.ledger.scoring import REFUSE_NEVER, SCORE_MAX, Thresholds
from ml.foreign.forest import SourceForest, convert_forest, make_calibration
from ml.foreign.lightgbm_text import read_lightgbm
from ml.foreign.onnx_reader import FILE_BYTES_MAX, read_onnx
from ml.foreign.sklearn_estimator import load_pickle, read_sklearn
from ml.foreign.xgboost_model import read_xgboost
from ml.model import Model, ModelCard, get_version

LIBRARIES: Final = ("lightgbm", "xgboost", "sklearn", "onnx")
SUFFIXES: Final = {
    ".txt": "lightgbm",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".onnx": "onnx",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".joblib": "sklearn",
}


def read_source(path: Path, library: str | None = None, trust_pickle: bool = False) -> SourceForest:
    """The forest in a file of `library` (None: by the file's suffix). Raises Rejected."""
    library = library or SUFFIXES.get(path.suffix.lower())
    if library is None:
        raise Rejected(
            f"suffix {path.suffix!r} names no library",
            field=str(path),
            mend=f"name it: --library {'|'.join(LIBRARIES)}",
        )
    if library == "sklearn":
        if not trust_pickle:
            raise Rejected(
                "is a pickle, which runs code as it loads",
                field=str(path),
                mend="if you made it yourself, add --trust-pickle; else export it to ONNX",
            )
        return read_sklearn(load_pickle(path))
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror or error})", field=str(path)) from None
    if len(data) > FILE_BYTES_MAX:
        raise Rejected(f"is larger than {FILE_BYTES_MAX} bytes", field=str(path), code="size")
    if library == "lightgbm":
        try:
            return read_lightgbm(data.decode())
        except UnicodeDecodeError:
            raise Rejected("is not text", field=str(path), mend="booster.save_model('model.txt')") from None
    return read_xgboost(data) if library == "xgboost" else read_onnx(data)


def make_model(source: SourceForest, like: Model, data: bytes = b"") -> Model:
    """The source's forest with the definitions and the scale of `like`; its card holds the SHA-256 of `data`,
    the source's file. Its probability is its score; it flags from one half on and refuses nothing."""
    card = ModelCard(
        data_sha256=(sha256(data).digest(),),
        day_start=0,
        day_end=0,
        rows=0,
        positives=0,
        seed=0,
        code_version=f"assay {get_version('assay-node')}, from {source.library}",
        metrics=(),
    )
    return Model(
        definitions=like.definitions,
        forest=convert_forest(source, like.definitions),
        scale=like.scale,
        calibration=make_calibration(source.link),
        thresholds=Thresholds(SCORE_MAX // 2, REFUSE_NEVER),
        card=card,
    )
