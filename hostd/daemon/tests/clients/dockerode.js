// A container's life by dockerode, against the host of DOCKER_HOST.

const assert = require("assert");
const { PassThrough } = require("stream");
const Docker = require("dockerode");

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });

function text(stream) {
  return new Promise((resolve, reject) => {
    let all = "";
    stream.on("data", (chunk) => (all += chunk));
    stream.on("end", () => resolve(all));
    stream.on("error", reject);
  });
}

// The two outputs of a stream of frames.
async function outputs(stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  stream.on("end", () => (out.end(), err.end()));
  return Promise.all([text(out), text(err)]);
}

async function main() {
  assert.equal((await docker.ping()).toString(), "OK");
  assert.equal((await docker.version()).ApiVersion, "1.51");
  assert.deepEqual((await docker.listImages())[0].RepoTags, ["busybox:latest"]);

  const quiet = { HostConfig: { NetworkMode: "none" } };
  const written = new PassThrough();
  const read = text(written);
  const [result, once] = await docker.run(
    "busybox", ["sh", "-c", "echo words; exit 4"], written, { Tty: true, ...quiet });
  written.end();
  assert.equal(result.StatusCode, 4);
  assert.equal(await read, "words\r\n");
  await once.remove();

  const box = await docker.createContainer({
    Image: "busybox",
    name: "box",
    Cmd: ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 5"],
    Labels: { part: "one" },
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    ...quiet,
  });
  const attached = await box.attach({
    stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const both = outputs(attached);
  await box.start();
  assert.equal((await box.inspect()).State.Running, true);
  const ended = box.wait();
  attached.write("line\n");
  attached.end();
  assert.deepEqual(await both, ["got line\n", "bad\n"]);
  assert.equal((await ended).StatusCode, 5);
  const list = await docker.listContainers({ all: true, filters: { label: ["part=one"] } });
  assert.match(list[0].Status, /^Exited \(5\) /);
  assert.match((await box.logs({ stdout: true })).toString(), /got line\n/);
  await box.remove();

  const long = await docker.createContainer({
    Image: "busybox", name: "long", Cmd: ["sleep", "1000"], StopSignal: "SIGKILL", ...quiet });
  await long.start();
  const exec = await long.exec({
    Cmd: ["sh", "-c", "cat; exit 6"], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const running = await exec.start({ hijack: true, stdin: true });
  const echoed = outputs(running);
  running.write("to exec\n");
  running.end();
  assert.equal((await echoed)[0], "to exec\n");
  assert.equal((await exec.inspect()).ExitCode, 6);
  assert.ok((await long.top()).Processes.length >= 1);
  // An archive that was taken out of one place goes into another.
  const archive = await long.getArchive({ path: "/bin/busybox" });
  await long.putArchive(archive, { path: "/tmp" });
  const stat = await long.infoArchive({ path: "/tmp/busybox" });
  assert.ok(stat.headers["x-docker-container-path-stat"]);
  stat.resume();
  await long.stop();
  await long.remove();
  const goods = await docker.createVolume({ Name: "goods", Labels: { part: "two" } });
  assert.equal((await goods.inspect()).Driver, "local");
  const checked = await docker.createContainer({
    Image: "busybox", name: "checked", Cmd: ["sleep", "1000"], StopSignal: "SIGKILL",
    Healthcheck: { Test: ["CMD", "true"], Interval: 5e7 },
    HostConfig: { NetworkMode: "none", Binds: ["goods:/goods"] } });
  await checked.start();
  while ((await checked.inspect()).State.Health.Status !== "healthy") {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const volumes = await docker.listVolumes({ filters: { label: ["part=two"] } });
  assert.deepEqual(volumes.Volumes.map((volume) => volume.Name), ["goods"]);
  await assert.rejects(goods.remove(), (error) => error.statusCode === 409);
  await checked.remove({ force: true });
  await goods.remove();
  await assert.rejects(long.inspect(), (error) => error.statusCode === 404);
  const until = Math.floor(Date.now() / 1000) + 1;
  const events = await text(await docker.getEvents({ since: 0, until, filters: { container: ["long"] } }));
  const actions = events.trim().split("\n").map((line) => JSON.parse(line).Action);
  for (const action of ["create", "start", "kill", "die", "stop", "destroy"]) {
    assert.ok(actions.includes(action), `${action} of ${actions}`);
  }
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
