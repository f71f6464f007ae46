"""Saves models as people do who log their own Python code with MLflow.

python make_pyfuncs.py FOLDER strange      one that misbehaves as the first value of a window says
python make_pyfuncs.py FOLDER table        one that is given a table with named columns
python make_pyfuncs.py FOLDER torch        an LSTM of torch between two scalers, as document 001's own model is;
                                           prints the answers to the windows it makes, as JSON
"""

import json
import os
import subprocess
import sys
import time

import mlflow.pyfunc
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema, TensorSpec

FEATURES = [f"f{place}" for place in range(18)]
METADATA = {"features": FEATURES, "close_index": 3}
SECRET = "what a person sent"


class Strange(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        assert model_input.shape == (1, 12, 18) and model_input.dtype == np.float32
        match int(model_input[0, 0, 0]):
            case 101:
                os._exit(7)
            case 102:
                time.sleep(3600)
            case 103:
                raise KeyError(SECRET)
            case 104:
                return np.array([[np.nan]])
            case 105:
                print(SECRET * 10_000)
                os.write(1, b"\xff" * 100_000)
                sys.stdin.read()
            case 106:
                return np.zeros(5)
            case 107:
                raise SystemExit(3)
            case 108:
                process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
                return np.array([float(process.pid)])
            case 109:
                return {"secrets": np.array([float(sum(name in os.environ for name in ("API_KEYS", "HF_TOKEN")))])}
            case 110:
                os.kill(os.getpid(), 11)
        return model_input[:, -1, 3] + 1.0


class Table(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        assert list(model_input.columns) == FEATURES and len(model_input) == 12
        return [float(model_input["f3"].iloc[-1]) * 2]


def torch_forecaster(folder):
    import torch

    class Scaler:
        def __init__(self, values):
            self.mean, self.scale = values.mean(0), values.std(0)

        def transform(self, values):
            return (values - self.mean) / self.scale

        def inverse_transform(self, values):
            return values * self.scale + self.mean

    class Lstm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(18, 64, 1, batch_first=True)
            self.head = torch.nn.Linear(64, 1)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    class LstmWithScaler(mlflow.pyfunc.PythonModel):
        def __init__(self, network, x_scaler, y_scaler):
            self.network, self.x_scaler, self.y_scaler = network.eval(), x_scaler, y_scaler

        def predict(self, context, model_input, params=None):
            x = self.x_scaler.transform(np.asarray(model_input, np.float64)).astype(np.float32)
            with torch.inference_mode():
                return self.y_scaler.inverse_transform(self.network(torch.from_numpy(x)).numpy().astype(np.float64))

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prices = 60_000 + rng.normal(size=(500, 18)).cumsum(0) * 100
    model = LstmWithScaler(Lstm(), Scaler(prices), Scaler(prices[:, 3:4]))
    windows = np.stack([prices[start : start + 12] for start in range(8)]).astype(np.float32)
    save(model, folder, ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 12, 18))])))
    answers = [float(model.predict(None, window[None])[0, 0]) for window in windows]
    print(json.dumps({"windows": windows.tolist(), "answers": answers}))


def save(model, folder, signature=None):
    options = {"signature": signature} if signature else {}
    mlflow.pyfunc.save_model(folder, python_model=model, metadata=METADATA, pip_requirements=[], **options)


if __name__ == "__main__":
    folder, kind = sys.argv[1:]
    match kind:
        case "strange":
            save(Strange(), folder)
        case "table":
            save(Table(), folder, ModelSignature(inputs=Schema([ColSpec("double", name) for name in FEATURES])))
        case "torch":
            torch_forecaster(folder)
