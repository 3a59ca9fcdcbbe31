"""Use a Kubernetes cluster with the Dask operator. Objects are rendered here, so that they can be read and checked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from builder.errors import MissingExtra
from builder.run.clusters.connection import Large, MemoryGib, Tls, configure_dask, connect, with_large
from builder.stages.graph import Runner

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]


class Volume(BaseModel):
    """A claim that is mounted in driver, scheduler and workers, for the sources, the dataset and the TLS files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Name
    path: Annotated[str, Field(pattern=r"^/")]


class Kubernetes(BaseModel):
    """A DaskCluster of the operator, in which each worker is a pod with one thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["kubernetes"] = "kubernetes"
    name: Name = "builder"
    namespace: Name = "default"
    image: str
    """Image with this package and its extras installed; see cluster/Dockerfile."""
    workers: Annotated[int, Field(ge=1, le=10_000)]
    memory_gib: MemoryGib
    """Memory of one worker, both requested and as the limit."""
    cpus: Annotated[float, Field(gt=0)] = 1
    scratch_gib: Annotated[float, Field(gt=0)] | None = None
    """Size of an emptyDir at /tmp; None uses the container's own disk."""
    secret: Name | None = None
    """Secret whose keys become environment variables, such as BUILDER_KEY and a store's credentials."""
    service_account: Name | None = None
    volumes: tuple[Volume, ...] = ()
    large: Large | None = None
    """Workers for tasks that do not fit the others."""
    tls: Tls
    """Paths inside the pods, on a volume."""
    VERSION: ClassVar[int] = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a runner on a DaskCluster that is created for this build and deleted with it."""
        try:
            from dask_kubernetes.operator import KubeCluster
        except ImportError as error:
            raise MissingExtra("dask-kubernetes", "kubernetes") from error
        configure_dask()
        count = workers or self.workers
        spec = render_cluster(self, workers=count)
        with (
            KubeCluster(custom_cluster_spec=spec, namespace=self.namespace, security=self.tls.security()) as cluster,
            connect(cluster, tls=self.tls, workers=count) as runner,
        ):
            yield with_large(runner, self.large, self._as_large)

    def _as_large(self, large: Large) -> "Kubernetes":
        update = {"workers": large.workers, "memory_gib": large.memory_gib, "large": None, "name": f"{self.name}-large"}
        return self.model_copy(update=update)


def render_cluster(profile: Kubernetes, *, workers: int) -> dict[str, Any]:
    """Return the DaskCluster object (kubernetes.dask.org/v1)."""
    name = profile.name
    tls = ["--tls-ca-file", profile.tls.ca_file, "--tls-cert", profile.tls.cert_file, "--tls-key", profile.tls.key_file]
    scheduler = ["dask-scheduler", "--protocol", "tls", "--no-dashboard", *tls]
    worker = ["dask-worker", "--name", "$(DASK_WORKER_NAME)", "--protocol", "tls", "--no-dashboard", "--nthreads", "1"]
    worker += ["--memory-limit", str(_bytes(profile)), *tls]
    ports = [{"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"}]
    alive = {"tcpSocket": {"port": "tcp-comm"}, "initialDelaySeconds": 5, "periodSeconds": 10}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name, "namespace": profile.namespace},
        "spec": {
            "idleTimeout": 0,
            "worker": {"replicas": workers, "spec": _pod(profile, "worker", worker)},
            "scheduler": {
                "spec": _pod(profile, "scheduler", scheduler, ports=ports, readinessProbe=alive, livenessProbe=alive),
                "service": {
                    "type": "ClusterIP",
                    "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
                    "ports": [{"name": "tcp-comm", "protocol": "TCP", "port": 8786, "targetPort": "tcp-comm"}],
                },
            },
        },
    }


def render_job(profile: Kubernetes, command: Sequence[str], *, identity: str) -> dict[str, Any]:
    """Return the Job (batch/v1) whose pod runs the driver. A pod that dies is started again and continues."""
    pod = _pod(profile, "driver", list(command))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{profile.name}-{identity}", "namespace": profile.namespace},
        "spec": {
            "backoffLimit": 6,
            "template": {
                "metadata": {"labels": {"app": profile.name, "builder-run": identity}},
                "spec": {**pod, "restartPolicy": "Never"},
            },
        },
    }


def _pod(profile: Kubernetes, role: str, args: list[str], **more: Any) -> dict[str, Any]:
    resources = {"cpu": f"{profile.cpus:g}", "memory": str(_bytes(profile))}
    mounts = [{"name": v.claim, "mountPath": v.path} for v in profile.volumes]
    volumes: list[dict[str, Any]] = [
        {"name": v.claim, "persistentVolumeClaim": {"claimName": v.claim}} for v in profile.volumes
    ]
    if profile.scratch_gib is not None:
        mounts.append({"name": "scratch", "mountPath": "/tmp"})
        volumes.append({"name": "scratch", "emptyDir": {"sizeLimit": f"{int(profile.scratch_gib * 1024)}Mi"}})
    container: dict[str, Any] = {
        "name": role,
        "image": profile.image,
        "args": args,
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **({"envFrom": [{"secretRef": {"name": profile.secret}}]} if profile.secret else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **more,
    }
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        **({"serviceAccountName": profile.service_account} if profile.service_account else {}),
        "containers": [container],
        **({"volumes": volumes} if volumes else {}),
    }


def _bytes(profile: Kubernetes) -> int:
    return int(profile.memory_gib * 2**30)
