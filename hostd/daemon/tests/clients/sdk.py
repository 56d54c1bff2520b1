"""A container's life by docker's Python SDK, against the host of DOCKER_HOST."""

import io
import tarfile
import time

import docker

client = docker.from_env()
assert client.ping()
assert client.version()["ApiVersion"] == "1.51"
assert client.info()["Images"] == 1
assert [image.tags for image in client.images.list()] == [["busybox:latest"]]

# Output, and a failure with what was written to standard error.
quiet = {"network_mode": "none"}
output = client.containers.run("busybox", ["echo", "words"], remove=True, **quiet)
assert output == b"words\n", output
try:
    client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 7"], remove=True, **quiet)
    raise SystemExit("a failure passed")
except docker.errors.ContainerError as error:
    assert error.exit_status == 7 and error.stderr == b"bad\n", error
try:
    client.containers.create("no-such-image:1", "true", **quiet)
    raise SystemExit("a missing image passed")
except docker.errors.ImageNotFound:
    pass

# A container that stays.
box = client.containers.run(
    "busybox",
    ["sh", "-c", "echo first; while :; do sleep 1; done"],
    name="box",
    detach=True,
    environment={"COLOUR": "blue"},
    labels={"part": "one"},
    tmpfs={"/scratch": "size=1m"},
    stop_signal="SIGKILL",
    **quiet,
)
box.reload()
assert box.status == "running", box.status
assert box.labels["part"] == "one" and box.name == "box"
code, output = box.exec_run(["sh", "-c", "echo $COLOUR; exit 3"])
assert (code, output) == (3, b"blue\n"), (code, output)
code, (out, err) = box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert (code, out, err) == (0, b"o\n", b"e\n"), (code, out, err)
chunks = box.exec_run(["seq", "3"], stream=True).output
assert b"".join(chunks) == b"1\n2\n3\n"
raw = box.exec_run("cat", stdin=True, socket=True).output
raw._sock.sendall(b"through the socket\n")
assert b"through the socket\n" in raw.read(64)
raw.close()
assert box.top()["Titles"]
for line in box.logs(stream=True, follow=True):
    assert line == b"first\n"
    break
box.pause()
box.reload()
assert box.status == "paused"
box.unpause()
box.rename("case")
assert client.containers.get("case").id == box.id
box.restart(timeout=0)
box.reload()
assert box.status == "running"
assert [c.id for c in client.containers.list(filters={"label": "part=one"})] == [box.id]

# Files into it and out of it.
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as archive:
    member = tarfile.TarInfo("note")
    member.size = 5
    archive.addfile(member, io.BytesIO(b"words"))
assert box.put_archive("/scratch", packed.getvalue())
assert box.exec_run("cat /scratch/note").output == b"words"
chunks, stat = box.get_archive("/scratch/note")
assert (stat["name"], stat["size"]) == ("note", 5), stat
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
    assert archive.extractfile("note").read() == b"words"

# A volume, and a container that is checked.
goods = client.volumes.create("goods", labels={"part": "two"})
assert [v.name for v in client.volumes.list(filters={"label": "part=two"})] == ["goods"]
checked = client.containers.run(
    "busybox",
    ["sleep", "1000"],
    detach=True,
    volumes={"goods": {"bind": "/goods", "mode": "rw"}},
    healthcheck={"test": ["CMD-SHELL", "test -e /goods/item"], "interval": 50_000_000},
    stop_signal="SIGKILL",
    **quiet,
)
checked.reload()
assert checked.health in ("starting", "unhealthy"), checked.health
assert checked.exec_run("touch /goods/item").exit_code == 0
while checked.health != "healthy":
    time.sleep(0.05)
    checked.reload()
try:
    goods.remove()
    raise SystemExit("a volume in use was removed")
except docker.errors.APIError as error:
    assert error.status_code == 409, error
checked.remove(force=True)
goods.remove()
assert client.volumes.prune()["VolumesDeleted"] in (None, [])

# Its image, its end, and what was reported meanwhile.
image = box.commit("made", "1")
assert image.tags == ["made:1"], image.tags
box.stop(timeout=1)
assert box.wait()["StatusCode"] == 137
box.remove()
try:
    box.reload()
    raise SystemExit("a removed container is there")
except docker.errors.NotFound:
    pass
client.images.remove("made:1")
until = int(time.time()) + 1
events = client.events(since=0, until=until, decode=True, filters={"container": box.id})
seen = [event["Action"] for event in events]
wanted = ["create", "start", "pause", "unpause", "rename", "restart", "commit", "stop", "destroy"]
missing = [action for action in wanted if action not in seen]
assert not missing, (missing, seen)
print("done")
