"""Networks and ports of containers by docker's Python SDK, against the host of DOCKER_HOST."""

import time
import urllib.request

import docker
from docker.types import IPAMConfig, IPAMPool

client = docker.from_env()
serve = ["sh", "-c", "mkdir -p /www && echo page > /www/index.html && exec httpd -f -p 80 -h /www"]
pool = IPAMPool(subnet="10.88.0.0/24", gateway="10.88.0.1")
shop = client.networks.create("shop", ipam=IPAMConfig(pool_configs=[pool]), labels={"part": "one"})
other = client.networks.create("other", internal=True, check_duplicate=True)
assert [n.name for n in client.networks.list(filters={"label": "part=one"})] == ["shop"]

web = client.containers.run(
    "busybox", serve, name="web", detach=True, network="shop",
    ports={"80/tcp": ("127.0.0.1", None)}, stop_signal="SIGKILL")
web.reload()
port = web.ports["80/tcp"][0]["HostPort"]
for _ in range(100):
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3).read()
        break
    except OSError:
        time.sleep(0.05)
assert page == b"page\n", page

# By name, by alias, and with an address of its own; and not from outside.
shop.disconnect(web)
shop.connect(web, aliases=["www"], ipv4_address="10.88.0.9")
web.reload()
ends = web.attrs["NetworkSettings"]["Networks"]
assert ends["shop"]["IPAddress"] == "10.88.0.9", ends
for server in ("web", "www", "10.88.0.9"):
    line = ["sh", "-c", f"wget -qO- http://{server}/"]
    output = client.containers.run("busybox", line, network="shop", remove=True)
    assert output == b"page\n", output
try:
    client.containers.run("busybox", ["sh", "-c", "ping -c1 -W1 web"], network="other", remove=True)
    raise SystemExit("a name of another network was found")
except docker.errors.ContainerError:
    pass
other.connect("web")
other.reload()
assert [c.name for c in other.containers] == ["web"], other.attrs
try:
    shop.remove()
    raise SystemExit("a network in use was removed")
except docker.errors.APIError as error:
    assert error.status_code == 403, error
web.remove(force=True)
assert sorted(client.networks.prune()["NetworksDeleted"]) == ["other", "shop"]
print("done")
