"""What an import costs: nothing at the top, only torch for the layers, never torch for tables and configuration."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
LAB = (
    "numpy",
    "pandas",
    "pydantic",
    "hydra",
    "omegaconf",
    "wandb",
    "scipy",
    "sklearn",
    "matplotlib",
    "pyarrow",
)
LAB = (*LAB, "rich", "torchvision", "yaml", "joblib")


def python(code, absent=()):
    subprocess.run([sys.executable, "-c", BLOCKED.format(absent=set(absent)) + code], check=True, timeout=600)


def test_importing_the_package_imports_nothing_heavy():
    python(
        "import gbn; assert not {'torch', 'numpy', 'hydra', 'pandas'} & set(sys.modules); assert gbn.__version__"
    )
    python("import gbn; gbn.nn.norm_layer; assert 'torch' in sys.modules")


def test_the_layers_need_torch_alone():
    python(
        """
import torch
from gbn.nn import GeneralizedBatchNorm2d, norm_layer
layer = GeneralizedBatchNorm2d(3, quadrangle="cvar", alpha=0.6, act="relu")
x = torch.arange(3 * 4 * 9.0).cos().reshape(4, 3, 3, 3).requires_grad_()
y = layer(x)
(y * y).sum().backward()
assert y.shape == x.shape and x.grad.abs().sum() > 0
norm_layer("bn_reparam", matched_to={"quadrangle": "mad"})(3)(x)
""",
        LAB,
    )


@pytest.mark.parametrize(
    "module",
    [
        "gbn.config.grid",
        "gbn.config.outline",
        "gbn.store.archive",
        "gbn.store.identity",
        "gbn.analysis.results",
        "gbn.analysis.claims.ledger",
        "gbn.risk.parameters",
    ],
)
def test_configuration_store_and_analysis_never_import_torch(module):
    python(f"import {module}", absent=("torch",))


def test_an_unknown_subpackage_is_named():
    python(
        """
import gbn
try:
    gbn.kernel
except AttributeError as error:
    assert "kernels" in str(error)
else:
    raise SystemExit("no error")
"""
    )
