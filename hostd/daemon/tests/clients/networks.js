// Networks and ports of containers by dockerode, against the host of DOCKER_HOST.

const assert = require("assert");
const http = require("http");
const { PassThrough } = require("stream");
const Docker = require("dockerode");

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });
const serve = ["sh", "-c",
  "mkdir -p /www && echo page > /www/index.html && exec httpd -f -p 80 -h /www"];

function get(url) {
  return new Promise((resolve, reject) => {
    const asked = http.get(url, (answer) => {
      let all = "";
      answer.on("data", (chunk) => (all += chunk));
      answer.on("end", () => resolve(all));
    });
    asked.on("error", reject);
  });
}

async function page(url) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await get(url);
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function main() {
  const shop = await docker.createNetwork({
    Name: "shop", Labels: { part: "one" }, IPAM: { Config: [{ Subnet: "10.89.0.0/24" }] } });
  const web = await docker.createContainer({
    Image: "busybox", name: "web", Cmd: serve, StopSignal: "SIGKILL",
    ExposedPorts: { "80/tcp": {} },
    HostConfig: {
      NetworkMode: "shop", PortBindings: { "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "" }] } },
    NetworkingConfig: { EndpointsConfig: { shop: { Aliases: ["www"] } } } });
  await web.start();
  const shown = await web.inspect();
  const port = shown.NetworkSettings.Ports["80/tcp"][0].HostPort;
  assert.equal(await page(`http://127.0.0.1:${port}/`), "page\n");

  const written = new PassThrough();
  let all = "";
  written.on("data", (chunk) => (all += chunk));
  const [result, once] = await docker.run(
    "busybox", ["sh", "-c", "wget -qO- http://www/"], written,
    { Tty: true, HostConfig: { NetworkMode: "shop" } });
  assert.equal(result.StatusCode, 0);
  assert.equal(all, "page\r\n");
  await once.remove();

  const other = await docker.createNetwork({ Name: "other" });
  await other.connect({ Container: "web", EndpointConfig: { Aliases: ["there"] } });
  assert.deepEqual(Object.keys((await web.inspect()).NetworkSettings.Networks).sort(),
    ["other", "shop"]);
  assert.equal(Object.keys((await other.inspect()).Containers).length, 1);
  await other.disconnect({ Container: "web", Force: true });
  await assert.rejects(shop.remove(), (error) => error.statusCode === 403);
  const listed = await docker.listNetworks({ filters: { label: ["part=one"] } });
  assert.deepEqual(listed.map((network) => network.Name), ["shop"]);
  await web.remove({ force: true });
  assert.deepEqual((await docker.pruneNetworks()).NetworksDeleted.sort(), ["other", "shop"]);
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
