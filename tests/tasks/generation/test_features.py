"""The feature networks: known by their digests, refused where weights are missing or others."""

import json
import shutil
import subprocess
import sys
from urllib.error import URLError

import pytest
import torch

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.config.features import INCEPTION_SHA256, description, digest_of, folder
from gbn.tasks.generation import features
from gbn.tasks.generation.features import FeatureError, InceptionFeatures, OwnFeatures, feature_network

CPU = torch.device("cpu")


@pytest.fixture
def copied(tmp_path):
    """The committed network in a folder of the test's own."""
    for name in ("own.json", description("own")["file"]):
        shutil.copy(folder() / name, tmp_path / name)
    return tmp_path


def images(count=3):
    return torch.randint(
        256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_the_committed_network_is_the_one_that_its_file_describes():
    about = description("own")
    network = feature_network("own", CPU)
    assert network.suffix == f"own_{about['digest']}" == f"own_{about['sha256'][:8]}"
    assert network.reference == "test"
    found = network(images())
    assert found.shape == (3, about["features"])
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert (folder() / about["file"]).stat().st_size < 1.5e6
    assert about["test_accuracy"] > 0.7


def test_features_are_those_of_the_normalized_images_one_by_one():
    network = OwnFeatures(CPU)
    together = network(images())
    alone = torch.cat([network(one[None]) for one in images()])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # batches don't matter: evaluation mode
    plain = network.network(images().float() / 255)
    assert not torch.allclose(together, plain, rtol=0.1)


def test_other_images_are_refused():
    network = OwnFeatures(CPU)
    for wrong in (images().float(), images()[:, :1], images()[:, :, :28, :28]):
        with pytest.raises(ValueError, match=r"takes uint8 images \(N, 3, 32, 32\).*inception"):
            network(wrong)


def test_weights_that_are_not_those_described_are_refused(copied):
    file = copied / description("own")["file"]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FeatureError, match=r"has the digest [0-9a-f]{8}.*wrong name.*gbn study features"):
        OwnFeatures(CPU, copied)
    file.unlink()
    with pytest.raises(FeatureError, match="is missing"):
        OwnFeatures(CPU, copied)


def test_a_description_that_is_missing_or_damaged_is_one_line(copied):
    (copied / "own.json").write_text("{")
    with pytest.raises(ConfigError, match=r"own.json is damaged"):
        description("own", copied)
    (copied / "own.json").write_text(json.dumps({"file": "own.pt"}))
    with pytest.raises(ConfigError, match=r"lacks 'sha256'"):
        description("own", copied)
    (copied / "own.json").unlink()
    with pytest.raises(ConfigError, match=r"task.features=own has no network.*gbn study features") as error:
        description("own", copied)
    assert "\n" not in str(error.value)


def test_the_digest_is_in_the_identity_and_another_one_is_refused():
    own = compose(["task=generation"])
    inception = compose(["task=generation", "task.features=inception"])
    assert own.task.features_digest == digest_of("own")
    assert inception.task.features_digest == digest_of("inception") == INCEPTION_SHA256
    assert own.task.suffix == f"own_{digest_of('own')}"
    assert inception.task.suffix == "inception"
    with pytest.raises(ConfigError, match=r"asks for another: numbers of the two can't be compared"):
        compose(["task=generation", "task.features_digest=00000000"])


def test_the_digest_is_known_without_torch():
    code = (
        "import sys; from gbn.config.compose import compose; compose(['task=generation']); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inception_weights_that_cannot_be_had_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*_, **__):
        raise URLError("no network\nhere")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(FeatureError, match=r"are not available.*no network here.*task.features=own") as error:
        feature_network("inception", CPU)
    assert "\n" not in str(error.value)


def test_inception_gives_the_features_of_its_pool(monkeypatch, tmp_path):
    """With random weights in the standard file's place: all but their values, which are not here to be had."""
    module = features.fidelity("feature_extractor_inceptionv3")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: None)
    with monkeypatch.context() as without_weights:
        without_weights.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        state = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    monkeypatch.setattr(features, "_inception_weights", lambda: tmp_path / "weights.pth")
    network = InceptionFeatures(CPU)
    assert (network.suffix, network.reference) == ("inception", "train")
    assert network(images(2)).shape == (2, 2048)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.metric_kid", None)
    with pytest.raises(FeatureError, match=r"pip install torch-fidelity"):
        features.fidelity("metric_kid")
