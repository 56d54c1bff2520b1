"""Testcontainers for Python, against the host of DOCKER_HOST."""

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs

command = ["sh", "-c", "echo up to work; sleep 1000"]
with (
    DockerContainer("busybox")
    .with_command(command)
    .with_env("COLOUR", "blue")
    .with_name("tested")
    .with_kwargs(network_mode="none")
) as container:
    wait_for_logs(container, "up to work", timeout=20)
    code, output = container.exec(["sh", "-c", "echo $COLOUR"])
    assert (code, output) == (0, b"blue\n"), (code, output)
    out, err = container.get_logs()
    assert (out, err) == (b"up to work\n", b""), (out, err)
    labels = container.get_wrapped_container().labels
    assert labels["org.testcontainers"] == "true", labels
    client = container.get_docker_client()
    name = container.get_wrapped_container().name
    assert name == "tested", name

from docker import from_env  # noqa: E402

assert from_env().containers.list(all=True) == []
print("done")
