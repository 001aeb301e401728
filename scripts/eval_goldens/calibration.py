"""What scikit-learn makes of seeded labelled scores: Platt, temperature, isotonic and beta calibration, and the reports.

    pip install -r scripts/eval_goldens/requirements-calibration.txt
    python scripts/eval_goldens/calibration.py > crates/eval/tests/golden/calibration.json
"""

import json

import numpy as np
import scipy
import sklearn
from scipy.special import expit, log_expit
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss


def logistic(features, labels, intercept):
    """Logistic regression on Platt's softened labels: each pair counts twice, once as each label, with weights."""
    n1, n0 = labels.sum(), (1 - labels).sum()
    soft = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-13, max_iter=10_000)
    twice = np.concatenate([features, features])
    model.fit(twice, np.repeat([1, 0], len(labels)), sample_weight=np.concatenate([soft, 1 - soft]))
    return [float(w) for w in model.coef_[0]] + ([float(model.intercept_[0])] if intercept else [])


def case(name, logits, labels):
    sigmoid = _SigmoidCalibration().fit(logits, labels)
    n = len(labels)
    isotonic = IsotonicRegression(y_min=1 / (n + 2), y_max=1 - 1 / (n + 2), out_of_bounds="clip").fit(logits, labels)
    probes = np.linspace(logits.min() - 1, logits.max() + 1, 41)
    plain = expit(logits)
    return {
        "name": name,
        "logits": [float(z) for z in logits],
        "labels": [int(y) for y in labels],
        # The class writes sigmoid(-(a z + b)); its own minimiser stops at about six digits.
        "platt_class": [-float(sigmoid.a_), -float(sigmoid.b_)],
        "platt": logistic(logits[:, None], labels, True),
        "temperature": 1 / logistic(logits[:, None], labels, False)[0],
        "beta": logistic(np.stack([log_expit(logits), -log_expit(-logits)], axis=1), labels, True),
        "probes": [float(z) for z in probes],
        "isotonic": [float(p) for p in isotonic.predict(probes)],
        "log_loss": float(log_loss(labels, plain)),
        "brier": float(brier_score_loss(labels, plain)),
    }


def main():
    rng = np.random.default_rng(11)
    cases = []
    for name, n, slope, shift, digits in [
        ("plain", 60, 1.0, 0.0, 6),
        ("overconfident and shifted", 80, 0.4, -1.0, 6),
        ("ties", 80, 0.8, -0.5, 0),
        ("few relevant", 120, 0.9, -3.0, 6),
    ]:
        logits = np.round(rng.normal(0.0, 2.5, n), digits) + 0.0
        labels = (rng.random(n) < expit(slope * logits + shift)).astype(int)
        cases.append(case(name, logits, labels))
    versions = {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    print(json.dumps({"made_by": "scripts/eval_goldens/calibration.py", "versions": versions, "cases": cases}))


if __name__ == "__main__":
    main()
