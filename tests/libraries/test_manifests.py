"""The Kubernetes manifest of deploy/ against the API's own schemas."""

import pytest
from support.server import REPOSITORY

kubernetes_validate = pytest.importorskip("kubernetes_validate")
yaml = pytest.importorskip("yaml")
TEXT = (REPOSITORY / "deploy" / "kubernetes.yaml").read_text()


@pytest.mark.parametrize("document", yaml.safe_load_all(TEXT), ids=lambda one: one["kind"])
def test_the_manifest_is_valid(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_wrong_one_would_be_seen():
    deployment = next(yaml.safe_load_all(TEXT))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)
