"""Testcontainers for Python with published ports and networks, against the host of DOCKER_HOST."""

import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

serve = ["sh", "-c", "mkdir -p /www && echo page > /www/index.html && echo up; exec httpd -f -p 80 -h /www"]
with Network() as network:
    server = (
        DockerContainer("busybox")
        .with_command(serve)
        .with_exposed_ports(80)
        .with_network(network)
        .with_network_aliases("www")
        .with_kwargs(stop_signal="SIGKILL")
    )
    with server as web:
        wait_for_logs(web, "up", timeout=20)
        url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
        for attempt in range(100):
            try:
                page = urllib.request.urlopen(url, timeout=3).read()
                break
            except OSError:
                if attempt == 99:
                    raise
        assert page == b"page\n", page
        asks = DockerContainer("busybox").with_command(["sleep", "1000"]).with_network(network)
        with asks.with_kwargs(stop_signal="SIGKILL") as client:
            code, output = client.exec(["sh", "-c", "wget -qO- http://www/"])
            assert (code, output) == (0, b"page\n"), (code, output)
    name = network.name

from docker import from_env  # noqa: E402

assert name not in [known.name for known in from_env().networks.list()]
print("done")
