"""Norms swapped in networks that were built elsewhere, and swapped back."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gbn
from gbn.nn import METHODS, GeneralizedBatchNorm2d, norm_layer
from gbn.nn.base import BatchStatisticsNorm
from gbn.surgery import NotAffine
from tests.surgery.networks import IMAGES, Block, network, randomize

PAIRS: dict[str, dict[str, Any]] = {
    "gbn_std": {},
    "gbn_cvar": {"alpha": 0.9},
    "gbn_mad": {},
    "gbn_upper_semideviation": {},
    "gbn_cvar_rescaled": {},
    "bn": {},
    "bn_matched": {"matched_to": "gbn_cvar"},
    "bn_reparam": {"matched_to": "gbn_mad"},
    "iebn": {},
}


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same_state(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", PAIRS)
def test_a_match_keeps_the_function_and_reverting_every_bit(name: str) -> None:
    model = network()
    before, expected = state(model), outputs(model)
    done = gbn.convert(model, name, match="function", **PAIRS[name])
    assert done.model is model
    assert len(done.swapped) == 5
    torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5)
    gbn.revert(model)
    assert_same_state(state(model), before)
    assert torch.equal(outputs(model), expected)
    assert type(model[1].bn1) is nn.BatchNorm2d


@pytest.mark.parametrize("name", ["gbn_cvar", "gbn_mad", "gbn_range", "gbn_entropic"])
def test_a_match_on_data_starts_training_at_the_old_function(name: str) -> None:
    """In training the new layers use the batch's S and D: on the batch that they were measured on, those agree."""
    model = network().double()
    images = IMAGES.double()
    gbn.calibrate(model, [images])
    expected = model(images)
    gbn.convert(model, name, match="function", batches=[images])
    torch.testing.assert_close(model(images), expected)
    first = model[0]
    torch.testing.assert_close(first.train()(images), first.eval()(images))


def test_a_pair_without_values_on_a_gaussian_asks_for_data() -> None:
    with pytest.raises(ValueError, match=r"norm '0.1' can only be matched on data, add batches="):
        gbn.convert(network(), "gbn_entropic", match="function")


@pytest.mark.parametrize("name", ["mixture", "layer", "none", "instance"])
def test_a_match_of_what_cannot_be_matched_is_refused_and_changes_nothing(name: str) -> None:
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match=r"'0\.1'"):
        gbn.convert(model, name, match="function")
    assert_same_state(state(model), before)


@pytest.mark.filterwarnings("ignore:the running averages of")
@pytest.mark.parametrize("method", [name for name in METHODS if name != "custom"])
def test_every_method_keeps_what_the_layers_had(method: str) -> None:
    options = (
        {"matched_to": "gbn_cvar"} if method.startswith("bn_") else {"groups": 2} if method == "group" else {}
    )
    model = network()
    old = model[0][1]
    weight, bias = old.weight, old.bias
    weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    model[1].bn2.eval()
    gbn.convert(model, method, where=nn.BatchNorm2d, **options)
    new = model[0][1]
    accepted = METHODS[method].options
    for key in ("eps", "momentum"):
        if key in accepted:
            assert getattr(new, key) == getattr(old, key)
    if "affine" in accepted:
        assert new.weight is weight  # the optimizer goes on with it
        assert new.bias is bias
        assert not weight.requires_grad
    assert new.training
    assert not model[1].bn2.training
    model(IMAGES).sum().backward()
    optimizer.step()


def test_only_running_averages_that_mean_the_same_are_kept() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = gbn.convert(network(), "gbn_std").model[0][1]
    assert torch.equal(kept.running_mean, network()[0][1].running_mean)
    with pytest.warns(
        UserWarning, match=r"running averages of 5 norms \(0\.1, \.\.\.\) start anew"
    ) as caught:
        fresh = gbn.convert(network(), "gbn_cvar").model[0][1]
    assert len(caught) == 1
    assert fresh.running_statistic.eq(0).all()
    assert fresh.num_batches_tracked == 0


def test_an_untrained_network_converts_without_a_warning() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gbn.convert(model, "gbn_cvar")


@pytest.mark.filterwarnings("ignore:the running averages of")
@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("1.*", ["1.bn1", "1.bn2"]),
        (["0.1", "8"], ["0.1", "8"]),
        (nn.BatchNorm1d, ["8"]),
        (lambda path, layer: layer.num_features == 8, ["0.1", "1.bn1", "1.bn2"]),
        ([nn.BatchNorm1d, "3"], ["3", "8"]),
    ],
)
def test_where(where: Any, paths: list[str]) -> None:
    done = gbn.convert(network(), "gbn_mad", where=where)
    assert [one.path for one in done.swapped] == paths
    assert len(done.kept) == 5 - len(paths)


@pytest.mark.parametrize("where", ["layer9.*", nn.BatchNorm3d, ["0.1", "no"], lambda path, layer: False])
def test_where_that_selects_nothing_lists_the_norms(where: Any) -> None:
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match=r"selects no norm .* 0\.1, 1\.bn1, 1\.bn2, 3, 8"):
        gbn.convert(model, "gbn_mad", where=where)
    assert_same_state(state(model), before)


def test_a_network_without_batch_normalization_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with pytest.raises(
        ValueError, match=r"no batch normalization to swap.*1 \(normalizes each image by itself"
    ):
        gbn.convert(model, "gbn_mad")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: gbn.convert(m, "gbn_cvr"), "did you mean 'gbn_cvar'"),
        (lambda m: gbn.convert(m, "gbn_cvar", alpha=2), "alpha"),
        (lambda m: gbn.convert(m, "gbn_mad", act="relu"), "keep or fuse"),
        (lambda m: gbn.convert(m, "gbn_mad", match="data"), "'function' or None"),
        (lambda m: gbn.convert(m, "gbn_mad", batches=[IMAGES]), "match='function'"),
        (lambda m: gbn.convert(m, norm_layer("gbn_mad"), eps=1e-3), "leave out eps"),
        (lambda m: gbn.convert(m, norm_layer("gbn_mad", without_act="bn")), "say `where` instead"),
        (lambda m: gbn.convert(m, "gbn_mad", match="function", batches=[]), "batches is empty"),
        (lambda m: gbn.revert(m), "no layer that gbn.convert swapped in"),
    ],
)
def test_what_cannot_be_done_is_said(call: Callable[[nn.Module], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(network())


def test_a_lazy_norm_has_to_see_an_image_first() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match=r"norm '1' is lazy.*call the model once"):
        gbn.convert(model, "gbn_mad")
    model(IMAGES)
    with pytest.warns(UserWarning, match="start anew"):
        gbn.convert(model, "gbn_mad")
    assert isinstance(model[1], GeneralizedBatchNorm2d)


class _Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_subclass_is_swapped_only_if_named() -> None:
    model = nn.Sequential(_Doubled(3), nn.BatchNorm2d(3))
    done = gbn.convert(model, "gbn_mad", inplace=False)
    assert [one.path for one in done.swapped] == ["1"]
    assert "_Doubled is a subclass of BatchNorm" in str(done)
    assert [one.path for one in gbn.convert(model, "gbn_mad", where=_Doubled).swapped] == ["0"]


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 3, 3), (6, 4, 2, 3, 3)])
def test_synchronized_batch_normalization_of_any_dimension(shape: tuple[int, ...]) -> None:
    model = randomize(nn.Sequential(nn.SyncBatchNorm(4)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    gbn.convert(model, "gbn_cvar", match="function")
    torch.testing.assert_close(model(x), expected)
    model.train()(x)


class FrozenBatchNorm2d(nn.Module):
    """torchvision's, as copied into many detectors: all of its tensors are buffers."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w, b, rv, rm = (
            getattr(self, name).reshape(1, -1, 1, 1)
            for name in ("weight", "bias", "running_var", "running_mean")
        )
        scale = w * (rv + self.eps).rsqrt()
        return x * scale + b - rm * scale


def test_frozen_batch_normalization() -> None:
    model = nn.Sequential(FrozenBatchNorm2d(3))
    expected = outputs(model)
    before = state(model)
    gbn.convert(model.eval(), "gbn_cvar", match="function")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(outputs(model), expected)
    gbn.revert(model)
    assert_same_state(state(model), before)


def test_hooks_stay_and_their_handles_work() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    seen: list[type[nn.Module]] = []
    handle = model[0].register_forward_hook(lambda layer, args, output: seen.append(type(layer)))
    gbn.convert(model, "gbn_mad")
    model(IMAGES)
    assert seen == [GeneralizedBatchNorm2d]
    handle.remove()
    model(IMAGES)
    assert len(seen) == 1


def test_tied_norms_stay_tied() -> None:
    shared = nn.BatchNorm2d(3)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    done = gbn.convert(model, "gbn_mad")
    assert len(done.swapped) == 1
    assert model["a"] is model["b"][0]
    gbn.revert(model)
    assert model["a"] is shared
    assert model["b"][0] is shared


class _Positive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_parametrized_gains_stay_parametrized() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    parametrize.register_parametrization(model[0], "weight", _Positive())
    original = model[0].parametrizations.weight.original
    gbn.convert(model, "gbn_mad")
    assert parametrize.is_parametrized(model[0])
    torch.testing.assert_close(model[0].weight, original.exp())
    with pytest.raises(ValueError, match="parametrized in norm '0'"):
        gbn.convert(model, "gbn_std", match="function")


def test_the_model_may_be_a_norm_itself() -> None:
    done = gbn.convert(nn.BatchNorm2d(3), "gbn_cvar")
    assert isinstance(done.model, GeneralizedBatchNorm2d)
    assert isinstance(gbn.revert(done.model).model, nn.BatchNorm2d)


@pytest.mark.filterwarnings("ignore:the running averages of")
def test_our_own_layers_are_swapped_too() -> None:
    model = gbn.convert(network(), "gbn_cvar", match="function", act="fuse").model
    expected = outputs(model)
    gbn.convert(model, "gbn_mad", match="function")
    assert model[0][1].act == "relu"
    torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5)


def test_fusing_takes_the_activations_that_a_sequential_proves() -> None:
    model = network()
    expected = outputs(model)
    done = gbn.convert(model, "gbn_mad", match="function", act="fuse")
    assert {one.path: one.remark for one in done.swapped if one.remark} == {
        "0.1": "relu fused",
        "3": "gelu fused",
    }
    assert isinstance(model[0][2], nn.Identity)
    assert isinstance(model[1].relu, nn.ReLU)  # used twice, by code that a Sequential does not show
    torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5)
    gbn.revert(model)
    assert isinstance(model[0][2], nn.ReLU)
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize("act", [nn.LeakyReLU(0.2), nn.ELU(2.0), nn.GELU("tanh"), nn.PReLU(), nn.Softplus()])
def test_no_other_activation_is_fused(act: nn.Module) -> None:
    model = randomize(nn.Sequential(nn.BatchNorm2d(3), act))
    expected = outputs(model)
    gbn.convert(model, "gbn_mad", match="function", act="fuse")
    assert model[1] is act
    torch.testing.assert_close(outputs(model), expected)


def test_an_activation_that_others_use_or_watch_is_not_fused() -> None:
    act = nn.ReLU()
    shared = nn.Sequential(nn.BatchNorm2d(3), act, nn.BatchNorm2d(3), act)
    assert not any(one.remark for one in gbn.convert(shared, "gbn_mad", act="fuse").swapped)
    watched = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    watched[0].register_forward_hook(lambda *args: None)
    assert not any(one.remark for one in gbn.convert(watched, "gbn_mad", act="fuse").swapped)


@pytest.mark.parametrize("match", [None, "function"])
@pytest.mark.filterwarnings("ignore:the running averages of")
def test_a_trained_conversion_reverts_to_what_it_learned(match: Any) -> None:
    model = network()
    gbn.convert(model, "gbn_std" if match is None else "gbn_cvar", match=match)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)
    expected = outputs(model)
    gbn.revert(model)
    assert not any(isinstance(layer, BatchStatisticsNorm) for layer in model.modules())
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_of_a_converted_network_revert(how: str) -> None:
    model = network()
    before = state(model)
    gbn.convert(model, "gbn_cvar", match="function")
    if how == "deepcopy":
        other = copy.deepcopy(model)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        other = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    gbn.revert(other)
    assert_same_state(state(other), before)
    assert isinstance(model[0][1], GeneralizedBatchNorm2d)


def test_a_copy_leaves_the_model_alone() -> None:
    model = network()
    before = state(model)
    done = gbn.convert(model, "gbn_cvar", match="function", inplace=False)
    assert done.model is not model
    assert_same_state(state(model), before)
    again = gbn.revert(done.model, inplace=False)
    assert isinstance(done.model[0][1], GeneralizedBatchNorm2d)
    assert_same_state(state(again.model), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    gbn.convert(model, "gbn_cvar", match="function")
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(IMAGES.to(dtype)).dtype == dtype
    gbn.revert(model)
    assert model[0][1].running_mean.dtype == dtype


def test_a_network_on_the_meta_device_converts() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    gbn.convert(model, "gbn_cvar")
    assert model[1].weight.is_meta


def test_a_layer_without_gain_or_averages_is_converted_but_not_matched() -> None:
    plain = nn.Sequential(nn.BatchNorm2d(3, affine=False, track_running_stats=False))
    gbn.convert(plain, "gbn_cvar")
    assert plain[0].weight is None
    assert plain[0].running_statistic is None
    without = nn.Sequential(nn.BatchNorm2d(3, affine=False))
    with pytest.raises(ValueError, match=r"sets gain and bias, and .* lacks both"):
        gbn.convert(without, "gbn_cvar", match="function")
    with pytest.raises(NotAffine, match="no running statistics"):
        gbn.convert(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "gbn_cvar", match="function")


def test_a_failure_halfway_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(network(), nn.BatchNorm1d(10, affine=False)).eval()
    before, expected = state(model), outputs(model)
    with pytest.raises(ValueError, match="'1' lacks both"):
        gbn.convert(model, "gbn_cvar", match="function", act="fuse")
    assert_same_state(state(model), before)
    assert torch.equal(outputs(model), expected)
    assert not any(isinstance(layer, BatchStatisticsNorm) for layer in model.modules())


def test_a_norm_that_the_data_does_not_reach_is_said() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = Block(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x)

    model = randomize(Auxiliary())
    batches = [torch.randn(4, 4, 3, 3)]
    with pytest.raises(ValueError, match="norm 'side' is not reached"):
        gbn.convert(model, "gbn_mad", match="function", batches=batches, inplace=False)
    gbn.convert(model, "gbn_mad", match="function", batches=batches, where="main.*")


def test_a_bad_where_or_batch_leaves_the_training_mode_alone() -> None:
    model = network().train()
    with pytest.raises(RuntimeError):
        gbn.convert(model, "gbn_mad", match="function", batches=[torch.zeros(2, 5, 8, 8)], inplace=False)
    assert all(module.training for module in model.modules())


def test_the_summary_shows_paths_classes_and_reasons() -> None:
    done = gbn.convert(network(), "gbn_std", where="1.*")
    text = str(done).splitlines()
    assert text[0] == "2 norms swapped, 3 kept"
    assert text[1].split() == ["1.bn1", "BatchNorm2d", "->", "GeneralizedBatchNorm2d"]
    assert text[3].split() == ["0.1", "kept", "not", "selected", "by", "where"]


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    from gbn.data import torchvision_shim

    torchvision_shim.import_torchvision()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = randomize(timm.create_model("efficientnet_b0", num_classes=3))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        done = gbn.convert(model, "gbn_cvar", match="function")
        assert len(done.swapped) == 49
        assert not done.kept
        assert model.bn1.act == "silu"
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        gbn.revert(model)
        assert torch.equal(model(x), expected)


def test_a_gain_that_two_norms_share_is_not_matched() -> None:
    model = randomize(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)))
    model[1].weight = model[0].weight
    before = state(model)
    with pytest.raises(ValueError, match=r"norm '0' shares them with another module"):
        gbn.convert(model, "gbn_cvar", match="function")
    assert_same_state(state(model), before)
