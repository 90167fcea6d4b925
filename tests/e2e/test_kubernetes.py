"""deploy/kubernetes.yaml fits the schemas of Kubernetes, which forbid what they do not know."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.e2e.stack import DEPLOY

MANIFESTS = [
    pytest.param(manifest, id=f"{file.name}-{manifest['kind']}")
    for file in sorted(DEPLOY.glob("kubernetes*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]


# The oldest that the package knows, and the newest.
@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifest_fits_the_schema_of_kubernetes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_schema_of_kubernetes_finds_a_misspelt_field() -> None:
    (deployment,) = [copy.deepcopy(one.values[0]) for one in MANIFESTS if one.id == "kubernetes.yaml-Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["livnessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livnessProbe"):
        kubernetes_validate.validate(deployment, "1.25", strict=True)
